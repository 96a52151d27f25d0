"""Estimated time of a run: its FLOPs at an assumed speed, and what each run costs before and after them."""

from dataclasses import dataclass

from mdm_jax.counting import forward_flops, train_flops
from mdm_jax.spec import Family, FlopConvention, RunSpec
from mdm_jax.tree import require


@dataclass(frozen=True)
class Speed:
    """What is assumed of the machine. The defaults are two CPU cores on short rows (28 to 58 GFLOP/s measured)."""

    flops_per_second: float = 4e10
    run_overhead_seconds: float = 8.0
    """Start, compilation and checkpoint of one run."""

    def __post_init__(self) -> None:
        require(self.flops_per_second > 0, "--flops-per-second", self.flops_per_second, "above 0")
        require(self.run_overhead_seconds >= 0, "--run-overhead", self.run_overhead_seconds, "at least 0 seconds")

    def seconds(self, run: RunSpec) -> float:
        """Estimated wall time of training and the final evaluation, in seconds."""
        return (work_flops(run)) / self.flops_per_second + self.run_overhead_seconds


def work_flops(run: RunSpec) -> int:
    """`exact` FLOPs of training and of the final evaluation."""
    length = run.data.seq_len
    sequences = max(2, run.evaluation.eval_tokens // length // 2 * 2)
    passes = 1 if run.family is Family.ARM else run.evaluation.mc_samples
    once = forward_flops(run.model, run.objective, sequences, length)
    return train_flops(run, FlopConvention.EXACT) + passes * once
