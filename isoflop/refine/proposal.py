"""A proposal: further runs, the reason, and the expected effect. Limits bound all proposals together."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from mdm_jax.spec import Family, RunSpec
from mdm_jax.spec.counting import train_flops


class Kind(enum.StrEnum):
    """What a proposal is for, the most urgent first: missing results come before wide intervals."""

    OVERLAP = "overlap"
    MINIMUM = "minimum"
    RETRY = "retry"
    GAP = "gap"
    SIZE = "size"


TITLES = {
    Kind.OVERLAP: "no common loss",
    Kind.MINIMUM: "no usable minimum",
    Kind.RETRY: "a run diverged",
    Kind.GAP: "the gap's interval",
    Kind.SIZE: "the optimal size's interval",
}


def flops_of(runs: Sequence[RunSpec]) -> float:
    """Training FLOPs of the runs, under their plan's convention."""
    return float(sum(train_flops(run, run.cell.convention) for run in runs))


@dataclass(frozen=True)
class Proposal:
    """Runs of one family at one budget that belong together."""

    kind: Kind
    runs: tuple[RunSpec, ...]
    why: str
    """The finding, with its number."""
    effect: str
    """What the runs are expected to change."""
    value: float
    """Gain for a FLOP, comparable within a kind."""

    @property
    def family(self) -> Family:
        """The family of all its runs."""
        return self.runs[0].family

    @property
    def budget(self) -> float:
        """FLOPs of each of its runs, under the plan's convention."""
        return self.runs[0].cell.budget or 0.0

    @property
    def flops(self) -> float:
        """Training FLOPs of its runs, under the plan's convention."""
        return flops_of(self.runs)

    @property
    def what(self) -> str:
        """Its cells: `arm at 1e+10 FLOPs: 1x16, 1x20 (seed 1)`."""
        cells = []
        for run in self.runs:
            rate = f", LR {run.optim.lr_peak:.3g}" if self.kind is Kind.RETRY else ""
            seed = f"seed {run.seed}" if run.seed or rate else ""
            cells.append(f"{run.cell.size} ({seed}{rate})" if seed else run.cell.size)
        return f"{self.family.value} at {self.budget:g} FLOPs: {', '.join(cells)}"


@dataclass
class Limits:
    """How much may still be proposed."""

    flops: float
    runs: int
    left_out: list[str] = field(default_factory=list)

    def fits(self, runs: Sequence[RunSpec]) -> bool:
        """Whether these runs are within the limits."""
        return len(runs) <= self.runs and flops_of(runs) <= self.flops

    def take(self, proposal: Proposal) -> bool:
        """Uses the limits for a proposal and returns True. A proposal beyond them is noted as left out."""
        if not self.fits(proposal.runs):
            many = f"{len(proposal.runs)} run{'s' * (len(proposal.runs) != 1)}"
            self.left_out.append(f"{proposal.what} ({many}, {proposal.flops:.2e} FLOPs): {proposal.why}")
            return False
        self.use(proposal.runs)
        return True

    def use(self, runs: Sequence[RunSpec]) -> None:
        """Subtracts these runs from the limits."""
        self.flops -= flops_of(runs)
        self.runs -= len(runs)
