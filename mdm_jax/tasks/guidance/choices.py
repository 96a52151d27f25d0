"""What the command line of the measurement offers, without jax."""

import enum

SAMPLER = "confidence"


class Check(enum.StrEnum):
    """How an answer is scored: against the response, or as a date that the prompt asks for.

    `response` takes an answer as right if it equals the response, and its nearness is chrF (Popović 2015), the F2 score
    of its runs of 1 to 6 characters. `dates` takes every date as right that fits the prompt (`dates.nearness`).
    """

    RESPONSE = "response"
    DATES = "dates"
