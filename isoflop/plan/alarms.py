"""Alarms about a whole plan: it takes too long on this machine, or its text is too small."""

from collections.abc import Iterator, Sequence

from isoflop.cost import Machine
from isoflop.wording import duration, short_number
from mdm_jax.spec import RunSpec

A_DAY = 86400.0
"""Seconds. A sweep that takes longer on this machine raises an alarm."""
MANY_EPOCHS = 4
"""Passes up to which repeated text is worth nearly as much as new (Muennighoff et al. 2023, arXiv 2305.16264)."""


def too_long(runs: Sequence[RunSpec], machine: Machine) -> Iterator[str]:
    """An alarm if this machine would compute for more than a day, with budgets that take a day."""
    seconds = sum(machine.seconds(run) for run in runs)
    if machine.on_accelerators or seconds <= A_DAY:
        return
    days, largest = seconds / A_DAY, max((run.cell.budget or 0.0) for run in runs)
    yield (
        f"about {duration(seconds)} on this machine, one run after the other: a day is enough for smaller sizes at"
        f" budgets {short_number(days, 2)} times smaller (up to about {largest / days:.0e}); --hours 24 finds such"
        " budgets for a --config; --hardware v5e:16 plans for accelerators"
    )


def repeats_too_often(runs: Sequence[RunSpec], unique_tokens: int | None) -> bool:
    """Whether some run repeats the text more than `MANY_EPOCHS` times."""
    return bool(unique_tokens) and max(run.train_tokens for run in runs) > MANY_EPOCHS * (unique_tokens or 0)
