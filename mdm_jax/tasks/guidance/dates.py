"""Pairs of a request for a day, in English, and such a day as YYYY-MM-DD. Every answer can be checked.

    python -m mdm_jax.tasks.guidance.dates --train dates.jsonl --test dates_test.jsonl

Three of the eight forms of request name one day. The others leave a choice, such as `a summer day of 1987`. A pair is
made from its day: the day is drawn, then the form. Recent years are likelier than early ones, so that the answers have
a distribution of their own. No day of the test file is an answer in the training file. A request that leaves a choice
may stand in both.
"""

import datetime
import functools
import itertools
import random
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.files.storage import check_writable, write_atomic
from mdm_jax.spec.validation import require
from mdm_jax.tasks.pairs.pair import TextPair

FIRST_YEAR, LAST_YEAR, MEAN_AGE = 1950, 2029, 20.0
"""Ages of years are exponential with this mean in years, before the last year."""
MOST_PAIRS = 1_000_000
MOST_TEST_DATES = 2000
"""There are 29,220 dates, and the likelier ones must not all be kept for the test."""
CUT = " = "
"""Stands between the date and its answer, so that an ARM sees where the prompt ends."""
UNITS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
TEENS = (
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
    *("fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
"""Written here and not by `strftime`, whose names depend on the user's language."""
SEASONS = ("winter", "spring", "summer", "autumn")


def ordinal_word(day: int) -> str:
    """`first` to `thirty-first`."""
    tens, unit = divmod(day, 10)
    if day < 20:
        return UNITS[day] if day < 10 else TEENS[unit]
    if unit == 0:
        return ("twentieth", "thirtieth")[tens - 2]
    return f"{('twenty', 'thirty')[tens - 2]}-{UNITS[unit]}"


def ordinal_figure(day: int) -> str:
    """`1st` to `31st`."""
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


def forms(date: datetime.date) -> tuple[str, ...]:
    """The request for the date in each of the eight forms; the first three name no other date."""
    day, month, year = date.day, MONTHS[date.month - 1], date.year
    return (
        f"{day} {month} {year}",
        f"{day} {month[:3]} '{year % 100:02d}",
        f"the {ordinal_word(day)} of {month} {year}",
        f"a day of {month} {year}",
        f"a day of {month} in the {year // 10 * 10}s",
        f"the {ordinal_figure(day)} of a month of {year}",
        f"a {SEASONS[date.month % 12 // 3]} day of {year}",
        f"a day of {year}",
    )


def prompt_of(request: str) -> str:
    """The prompt of a pair with this request."""
    return request + CUT


def nearness(prompt: str, answer: str) -> float:
    """The share of the ten characters of an answer that agree with the nearest right date; 1 if the answer is right.

    A missing or a further character counts as wrong. 0 if no date fits the prompt.
    """
    right = _right_answers().get(prompt)
    if right is None:
        return 0.0
    given = np.frombuffer(answer.encode()[:10].ljust(10, b"\0"), np.uint8)
    return float((right == given).sum(1).max()) / max(10, len(answer.encode()))


@functools.cache
def _right_answers() -> dict[str, UInt8[np.ndarray, "n 10"]]:
    """The characters of all right dates, by prompt."""
    found: dict[str, list[bytes]] = {}
    first, last = datetime.date(FIRST_YEAR, 1, 1).toordinal(), datetime.date(LAST_YEAR, 12, 31).toordinal()
    for date in map(datetime.date.fromordinal, range(first, last + 1)):
        for request in forms(date):
            found.setdefault(prompt_of(request), []).append(date.isoformat().encode())
    return {prompt: np.frombuffer(b"".join(days), np.uint8).reshape(-1, 10) for prompt, days in found.items()}


def drawn_dates(draw: random.Random) -> Iterator[datetime.date]:
    """Dates without end, as likely as in the pairs."""
    while True:
        year = LAST_YEAR - int(draw.expovariate(1 / MEAN_AGE))
        if year >= FIRST_YEAR:
            first = datetime.date(year, 1, 1)
            yield first + datetime.timedelta(draw.randrange((datetime.date(year + 1, 1, 1) - first).days))


def date_pairs(train: int, test: int, seed: int) -> tuple[list[TextPair], list[TextPair]]:
    """Pairs for training and for the test, which share no answer. Training pairs may repeat.

    Args:
        train: training pairs.
        test: test pairs, each of another date.
        seed: the seed of all draws.

    Raises:
        ValueError: a number is out of range.
    """
    require(1 <= train <= MOST_PAIRS, "pairs", train, f"from 1 to {MOST_PAIRS}")
    require(1 <= test <= MOST_TEST_DATES, "test pairs", test, f"from 1 to {MOST_TEST_DATES}")
    draw = random.Random(seed)
    dates, held = drawn_dates(draw), dict[datetime.date, None]()
    while len(held) < test:
        held[next(dates)] = None
    free = (date for date in dates if date not in held)
    return [_pair(date, draw) for date in itertools.islice(free, train)], [_pair(date, draw) for date in held]


def _pair(date: datetime.date, draw: random.Random) -> TextPair:
    return TextPair(prompt_of(draw.choice(forms(date))), date.isoformat())


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = new_parser("mdm_jax.tasks.guidance.dates", __doc__)
    add = flags.add_argument
    add("--train", required=True, metavar="FILE", help="JSONL file of the training pairs")
    add("--test", required=True, metavar="FILE", help="JSONL file of the test pairs")
    add("--pairs", type=int, default=20_000, metavar="N", help="training pairs (%(default)s)")
    add("--test-pairs", type=int, default=200, metavar="N", help="test pairs (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    given = flags.parse_args(argv)

    def work() -> int:
        check_writable(given.train)
        check_writable(given.test)
        train, test = date_pairs(given.pairs, given.test_pairs, given.seed)
        for path, found in ((given.train, train), (given.test, test)):
            write_atomic(path, "".join(pair.line for pair in found))
            print(f"{path}: {len(found):,} pairs, such as {found[0].prompt}{found[0].response}")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
