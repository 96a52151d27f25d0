"""What runs cost: time, device-hours and money, on accelerators of the table or on this machine, at a stated MFU.

MFU here is `exact` FLOPs (matrix products, no rematerialisation) over the peak that the vendor publishes for dense
bfloat16. Prices come from the user (`--price`).
"""

import argparse
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mdm_jax.devices.accelerators import DEVICES, GB
from mdm_jax.spec import ComputeDtype, Family, FlopConvention, RunSpec, evaluated_loss
from mdm_jax.spec.counting import count_parameters, evaluated_tokens, forward_flops, trained_flops
from mdm_jax.spec.validation import require

STATE_BYTES_PER_PARAMETER = 16
"""Weights, gradients and AdamW's two moments, each float32."""
DEFAULT_MFU = 0.4
"""Assumed for accelerators, until a preflight's roofline or a run's own MFU is known."""
DEFAULT_MFU_HERE = 0.1
"""Assumed for CPUs: tiny models on short rows reach 28 to 73 GFLOP/s where a large matrix product reaches 400."""
DEFAULT_OVERHEAD_SECONDS, DEFAULT_OVERHEAD_SECONDS_HERE = 120.0, 2.0
"""Fixed seconds a run: start, imports, compilation, checkpoints. A 1B step compiles in a minute. A tiny one compiles in
3 s, and runs of one shape share the program."""
DEFAULT_STEP_SECONDS_HERE = 0.0004
"""Fixed seconds a step on CPUs. On accelerators the host prepares the next step while the device computes."""

HERE = "here"
SPEED, MFU, OVERHEAD = "peak_flops_per_second", "mfu", "run_overhead_seconds"
"""Fields of `Machine` that may be assumed."""
MOST_SPEED = 1e25
"""FLOP/s, a thousand times the largest cluster so far."""


@dataclass(frozen=True)
class Machine:
    """The machine that times are estimated for. The default is assumed: two CPU cores on short rows."""

    kind: str = HERE
    devices: int = 1
    peak_flops_per_second: float = 6e10
    """The peak of one device."""
    mfu: float = 1.0
    price_per_hour: float | None = None
    """Dollars an hour of one device; None if unknown."""
    run_overhead_seconds: float = DEFAULT_OVERHEAD_SECONDS_HERE
    """Fixed seconds a run: start, imports, compilation."""
    step_seconds: float = DEFAULT_STEP_SECONDS_HERE
    """Fixed seconds a step, in addition to its FLOPs."""
    memory_bytes: float | None = None
    assumed: frozenset[str] = frozenset({SPEED, OVERHEAD})
    """The figures among `SPEED`, `MFU` and `OVERHEAD` that are neither given nor measured."""

    def __post_init__(self) -> None:
        require(1 <= self.devices <= 1 << 20, "--hardware: devices", self.devices, "from 1 to 2^20, such as v5e:16")
        speed, price, overhead = self.peak_flops_per_second, self.price_per_hour, self.run_overhead_seconds
        require(1 <= speed <= MOST_SPEED, "--flops-per-second", speed, f"from 1 to {MOST_SPEED:g}")
        require(1e-6 <= self.mfu <= 1, "--mfu", self.mfu, "above 0 and at most 1 (1e-6 is the least)")
        require(price is None or 0 <= price <= 1e9, "--price", price, "at least 0 and at most 1e9 dollars")
        require(0 <= overhead <= 1e9, "--run-overhead", overhead, "at least 0 seconds and at most 1e9")

    def seconds(self, run: RunSpec) -> float:
        """Estimated wall time of training and the final evaluation on all devices, in seconds."""
        return sum(self.time_parts(run))

    def time_parts(self, run: RunSpec) -> tuple[float, float, float]:
        """Seconds of a run: the fixed ones, those proportional to its own steps, those proportional to its FLOPs."""
        steps = run.schedule.steps - run.cell.parent_steps
        return self.run_overhead_seconds, steps * self.step_seconds, work_flops(run) / self.flops_per_second

    @property
    def flops_per_second(self) -> float:
        """The speed that all devices reach together."""
        return self.devices * self.peak_flops_per_second * self.mfu

    def device_hours(self, runs: Sequence[RunSpec]) -> float:
        """Estimated device-hours of the runs together."""
        return sum(self.seconds(run) for run in runs) * self.devices / 3600

    def price(self, runs: Sequence[RunSpec]) -> float | None:
        """Cost of the runs in dollars; None if no price is given."""
        return None if self.price_per_hour is None else self.device_hours(runs) * self.price_per_hour

    @property
    def on_accelerators(self) -> bool:
        """Whether the machine is in the table `DEVICES`. Its devices are counted and paid by the hour."""
        return self.kind != HERE

    @property
    def description(self) -> str:
        """What the estimates rest on, in words. Assumed figures are called assumed."""
        speed = f"{self.peak_flops_per_second:.4g} FLOP/s"
        assumed = "an assumed " if OVERHEAD in self.assumed else ""
        fixed = f"{assumed}{self.run_overhead_seconds:g} s a run for start, imports and compilation (--run-overhead)"
        fixed += f", {1000 * self.step_seconds:.2g} ms a step in addition to its FLOPs" if self.step_seconds else ""
        if self.kind == HERE and self.mfu == 1:
            at = f"an assumed {speed}" if SPEED in self.assumed else speed
            flags = "(--flops-per-second; --hardware v5e:16 for an accelerator)"
            return f"one run after the other at {at} {flags}, {fixed}"
        price = "" if self.price_per_hour is None else f", ${self.price_per_hour:g} a device-hour (--price)"
        on = (
            f"{self.devices} x {self.kind} of {speed}"
            if self.on_accelerators
            else f"this machine, measured at {speed},"
        )
        mfu = f"an {'assumed ' if MFU in self.assumed else ''}MFU of {self.mfu:g} (--mfu)"
        return f"one run after the other on {on} at {mfu}, {fixed}{price}"

    def with_known(self, **figures: Any) -> "Machine":
        """The machine with these figures, which are no longer assumed. A figure of None changes nothing."""
        known = {name: value for name, value in figures.items() if value is not None}
        return replace(self, **known, assumed=self.assumed - set(known))


def find_machine(hardware: str, mfu: float | None, price: float | None, overhead: float | None) -> Machine:
    """The machine `KIND:COUNT`, such as v5e:16 (one device if no count is given). `here` is measured at once.

    Raises:
        ValueError: an unknown kind (the known ones are listed), or a count, MFU or price out of bounds.
    """
    match = re.fullmatch(r"([\w.-]+?)(?::(\d{1,9}))?", hardware.strip().lower())
    kind = match[1] if match else ""
    known = f"KIND:COUNT, such as v5e:16, of the kinds {', '.join([*DEVICES, HERE])}"
    require(kind in DEVICES or kind == HERE, "--hardware", hardware, known)
    assert match is not None
    count = int(match[2] or 1)
    assumed = frozenset({MFU, OVERHEAD})
    if kind == HERE:
        require(count == 1, "--hardware", hardware, "here: this machine is one device")
        usual = Machine(peak_flops_per_second=measured_flops_per_second(), mfu=DEFAULT_MFU_HERE, assumed=assumed)
    else:
        device, overhead_seconds = DEVICES[kind], DEFAULT_OVERHEAD_SECONDS
        speed, memory = device.flops_per_second, device.memory_bytes
        usual = Machine(kind, count, speed, DEFAULT_MFU, None, overhead_seconds, 0.0, memory, assumed)
    return usual.with_known(mfu=mfu, run_overhead_seconds=overhead, price_per_hour=price)


def machine_of(options: argparse.Namespace, otherwise: Machine) -> Machine:
    """The machine of the flags --hardware, --mfu, --price, --flops-per-second and --run-overhead.

    Args:
        options: the parsed flags.
        otherwise: the machine without --hardware. The other flags replace its figures.

    Raises:
        ValueError: flags that exclude each other, or see `find_machine`.
    """
    speed, price, overhead = options.flops_per_second, options.price, options.run_overhead
    if options.hardware is not None:
        bound = "left out with --hardware, whose speed is its peak times --mfu"
        require(speed is None, "--flops-per-second", speed, bound)
        return find_machine(options.hardware, options.mfu, price, overhead)
    require(options.mfu is None, "--mfu", options.mfu, "given with --hardware")
    return otherwise.with_known(peak_flops_per_second=speed, run_overhead_seconds=overhead, price_per_hour=price)


def measured_flops_per_second(seconds: float = 0.25, size: int = 1024) -> float:
    """FLOP/s of float32 matrix products on this machine's CPUs, the best of those done in about `seconds`."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    np.matmul(a, a)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        np.matmul(a, a)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def doubts(runs: Sequence[RunSpec], machine: Machine) -> Iterator[str]:
    """Reasons to doubt the estimates: idle devices, a state beyond the memory, or a precision other than the peak's."""
    if machine.memory_bytes is None or not runs:
        return
    used = min(run.hardware.devices for run in runs)
    if used != machine.devices:
        yield (
            f"runs use {used} of the {machine.devices} devices of --hardware, and the times are those of all: set"
            f" run.hardware.mesh_data={machine.devices}, or give isoflop.preflight --mesh {machine.devices}x1 --write"
        )
    largest = max(runs, key=lambda run: count_parameters(run.model).total)
    state = count_parameters(largest.model).total * STATE_BYTES_PER_PARAMETER
    memory = machine.devices * machine.memory_bytes
    if state > memory:
        fewest = f"{machine.kind}:{-int(-state // machine.memory_bytes)}"
        yield (
            f"{largest.cell.size} does not fit: weights, gradients and moments are {state / GB:.1f} GB and"
            f" {machine.devices} x {machine.kind} hold {memory / GB:.1f} GB: take --hardware {fewest} or more"
        )
    if any(run.model.compute_dtype is ComputeDtype.FLOAT32 for run in runs):
        yield (
            f"the peak of {machine.kind} is bfloat16's, and these runs compute in float32: set"
            " run.model.compute_dtype=bfloat16, or lower --mfu"
        )


def work_flops(run: RunSpec) -> int:
    """`exact` FLOPs of a run's own steps (those after its parent's) and of its final evaluation."""
    return trained_flops(run, FlopConvention.EXACT) + evaluation_flops(run)


def evaluation_flops(run: RunSpec) -> int:
    """`exact` FLOPs of the final evaluation. With `evaluation.max_se` it may need fewer.

    An exact likelihood takes an MDM one forward pass for each token of a row. An ARM's is its loss. A trunk's segment
    is not evaluated by any.
    """
    length, evaluation = run.data.seq_len, run.evaluation
    sequences, exact = evaluated_tokens(run) // length, 0 if run.cell.segment else len(evaluation.likelihoods)
    passes = 1 if run.family is Family.ARM else evaluation.mc_samples + length * exact
    once = forward_flops(run.model, evaluated_loss(run.family), sequences, length)
    return passes * once


def chain_costs(runs: Iterable[RunSpec], cost: Callable[[RunSpec], int | float]) -> dict[str, float]:
    """Maps each run_id to the cost of the run plus its longest chain of dependents.

    Args:
        runs: `check_parents` has checked that a parent takes fewer steps than its child.
        cost: the cost of one run, such as its FLOPs or its seconds.
    """
    of_dependents: dict[str, float] = {}
    found: dict[str, float] = {}
    for run in sorted(runs, key=lambda run: run.schedule.steps, reverse=True):  # children before their parents
        found[run.run_id] = chain = float(cost(run)) + of_dependents.get(run.run_id, 0.0)
        parent = run.cell.parent_run_id
        of_dependents[parent] = max(of_dependents.get(parent, 0.0), chain)
    return found


def sweep_seconds(runs: Sequence[RunSpec], seconds: Callable[[RunSpec], float], jobs: int) -> float:
    """Estimated wall time of the runs, `jobs` at a time and the longest chain first.

    The estimate is the larger of two lower bounds: the total over `jobs`, and the longest chain of dependent runs.
    """
    return max(sum(map(seconds, runs)) / jobs, max(chain_costs(runs, seconds).values(), default=0.0))
