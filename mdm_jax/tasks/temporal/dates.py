"""Dates of texts: ISO dates and datetimes, RFC 2822, and year-months, all as days in UTC."""

import datetime
import email.utils
import re

DAYS_A_YEAR = 365.25
MONTH = re.compile(r"\d{4}-\d{2}")
MIDDLE_OF_MONTH = 15
KNOWN = "2016-03-01, 2016-03-01T05:48:54Z, 2016-03, or 'Tue, 01 Mar 2016 05:48:54 +0000'"


def parse_date(text: object) -> datetime.date:
    """The day of a date, in UTC if the text has a time zone.

    A month without a day is its 15th day, which is nearest to all of its days.

    Raises:
        ValueError: the text is none of the known kinds, which the message lists.
    """
    if isinstance(text, str):
        stripped = text.strip()
        if MONTH.fullmatch(stripped):
            stripped += f"-{MIDDLE_OF_MONTH}"
        for parse in (datetime.datetime.fromisoformat, email.utils.parsedate_to_datetime):
            try:
                moment = parse(stripped)
                return (moment if moment.tzinfo is None else moment.astimezone(datetime.UTC)).date()
            except (ValueError, TypeError, OverflowError):  # OverflowError: a zone leads out of the calendar
                continue
    raise ValueError(f"date = {str(text)[:60]!r}: must be like {KNOWN}")


def years_between(earlier: datetime.date, later: datetime.date) -> float:
    """The years from one day to another, negative if the second is the earlier one."""
    return (later - earlier).days / DAYS_A_YEAR
