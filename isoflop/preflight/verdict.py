"""The verdict on one shape of a plan: whether it fits, and which setting would."""

import dataclasses
from collections.abc import Callable

from isoflop.preflight.compile import Compiled, Setting
from isoflop.preflight.roofline import Roofline, roofline
from isoflop.preflight.search import depth, mixes, nearest, search
from isoflop.preflight.topology import Topology
from mdm_jax.devices.accelerators import GIB
from mdm_jax.spec import RunSpec


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One shape of the plan: its runs, the settings that were compiled, and those that fit."""

    runs: tuple[RunSpec, ...]
    """The runs of this shape, in the plan's order, on the mesh that is examined."""
    planned: Compiled
    tried: tuple[Compiled, ...]
    limit_bytes: float | None
    """Memory of one device; None without the TPU's compiler."""
    best: Compiled | None = None
    """The fitting setting with the shortest roofline; of equal ones, the one that recomputes least."""
    nearest: Compiled | None = None
    """The fitting setting with the fewest changes to the planned one."""

    @property
    def fits(self) -> bool | None:
        """Whether the planned setting fits; None if unknown."""
        if self.planned.failed or self.limit_bytes is None:
            return None
        return self.planned.fits(self.limit_bytes)


def examine(
    runs: tuple[RunSpec, ...],
    topology: Topology,
    compile_setting: Callable[[Setting], Compiled],
    on_host: bool = False,
    quick: bool = False,
) -> Verdict:
    """The verdict on a shape. Its planned setting is compiled first, then the settings of a search.

    Args:
        runs: all runs of the shape.
        compile_setting: compiles a setting; called once for each.
        on_host: the compiler is this host's, whose memory is not the TPU's. So nothing is searched or refused.
        quick: does not search.
    """
    run, limit = runs[0], topology.chip.hbm_bytes
    n_layers = run.model.n_layers
    tried: dict[Setting, Compiled] = {}

    def compiled(setting: Setting) -> Compiled:
        if setting not in tried:
            tried[setting] = compile_setting(setting)
        return tried[setting]

    planned = compiled(Setting.planned(run))
    if on_host:
        return Verdict(runs, planned, (planned,), None)
    if not (quick or planned.failed):
        mixes(run, compiled, limit, search(run, compiled, limit))
    fitting = [answer for answer in tried.values() if answer.fits(limit)]

    def cost(answer: Compiled) -> tuple[float, float]:
        return bound(run, topology, answer).seconds, depth(answer.setting, n_layers)

    best = min(fitting, key=cost, default=None)
    return Verdict(runs, planned, tuple(tried.values()), limit, best, nearest(planned.setting, fitting, n_layers))


def bound(run: RunSpec, topology: Topology, answer: Compiled) -> Roofline:
    """The roofline of the run's step in a setting that was compiled."""
    return roofline(answer.setting.of(run), topology.chip, answer.sent_bytes)


def advice(verdict: Verdict, topology: Topology) -> str:
    """What to do about a shape that does not fit, or whose compiler gave no answer: one line."""
    run, planned = verdict.runs[0], verdict.planned
    name = f"{run.family.value} {run.cell.size or run.run_id}"
    if planned.failed:
        return f"{name}: {planned.failed}"
    limit = topology.chip.hbm_bytes / GIB
    short = f"{name}: {planned.setting} needs {planned.hbm_bytes / GIB:.2f} GiB of {limit:.2f} on {topology.name}"
    if verdict.nearest is not None:
        return f"{short}: take {verdict.nearest.setting} ({verdict.nearest.hbm_bytes / GIB:.2f} GiB)"
    larger = topology.larger()
    where = f"a larger slice, such as --topology {larger.slice_name} --mesh {larger.mesh}" if larger else "another chip"
    if len(verdict.tried) == 1:
        return f"{short}: leave out --quick to find a setting that fits, or take {where}"
    return f"{short}, and no setting fits: take {where}"
