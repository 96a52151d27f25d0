"""The number of Monte Carlo draws of an MDM's NELBO: its default and its bounds, without jax."""

import numbers

from mdm_jax.spec.validation import require

DRAWS = 64
MOST_DRAWS = 1 << 20


def check_draws(name: str, draws: int) -> None:
    """Raises ValueError, with the name, if this is no number of Monte Carlo draws."""
    fits = isinstance(draws, numbers.Integral) and 2 <= draws <= MOST_DRAWS
    require(fits, name, draws, "from 2 to 2^20, a whole number")
