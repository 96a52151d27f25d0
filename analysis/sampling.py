"""The sampling that all intervals of a gap share: the number of draws, the seed, the unit and the level.

The report, `python -m analysis.gap`, `python -m isoflop.refine` and the defaults of the functions use these values, so
that all of them print the same interval for the same loss on the same sweep.
"""

from collections.abc import Sequence

DRAWS = 4000
"""Bootstrap draws: the ends of a 95% interval then move by a thirtieth of its half width from seed to seed."""
PARAMETRIC_DRAWS = 1000
"""The most draws of the parametric surfaces, because each draw is a search of its own."""
SEED = 0
UNITS = ("run", "budget")
UNIT = "run"
"""What the bootstrap perturbs."""
LEVEL = 0.95
"""Level of all intervals."""
MAX_DRAWS = 1_000_000


def check_bootstrap(unit: str, units: Sequence[str], n: int, seed: int) -> None:
    """Refuses a bootstrap that cannot be drawn.

    Raises:
        ValueError: a unit that is none of `units`, or n or seed out of range.
    """
    if unit not in units:
        raise ValueError(f"unit = {unit!r}: must be one of {', '.join(units)}")
    check_sampling(n, seed)


def check_sampling(n: int, seed: int) -> None:
    """Refuses a number of draws, or a seed, that is out of range.

    Raises:
        ValueError: n is below 1 or above `MAX_DRAWS`, or the seed is below 0.
    """
    if not 1 <= n <= MAX_DRAWS or seed < 0:
        raise ValueError(f"n = {n}, seed = {seed}: must be 1 to {MAX_DRAWS}, and at least 0")
