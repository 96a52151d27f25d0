"""The printed preflight: tables of the planned and of the best settings, their collectives, and how to read them."""

from collections.abc import Sequence

from isoflop.preflight.compile import Compiled
from isoflop.preflight.topology import Topology
from isoflop.preflight.verdict import Verdict, bound
from isoflop.wording import plain, short_number
from mdm_jax.devices.accelerators import GIB
from mdm_jax.spec import RunSpec
from mdm_jax.spec.counting import count_parameters

HEADER = ("family", "size", "N", "batch", "L", "mesh", "remat", "microbatch", "HBM GiB", "fits")
HEADER += ("sent GB", "compile s", "step ms", "bound by", "MFU")
NOT_A_FORECAST = """\
HBM: arguments + temporaries + outputs - aliased of one device, {whose}.
microbatch: rows on one device at a time. sent: bytes from one device over the interconnect in one step, read from the
compiled program; a loop counts as often as it runs. step and MFU: the roofline, a bound and not a forecast. It is the
longest of compute at peak (recomputation included), memory traffic (estimated from below), interconnect and, for
remat=offload, the link to the host.\
"""
COLLECTIVES = ("family", "size", "collective", "times a step", "sent GB")


def show(verdicts: Sequence[Verdict], topology: Topology, on_host: bool) -> None:
    """Prints the settings, their collectives, and how to read them."""
    limit = topology.chip.hbm_bytes / GIB
    title = f"Planned settings on {topology.name}" + ("" if on_host else f", {limit:.2f} GiB a device")
    print(plain(title, HEADER, [_row(v.runs[0], v.planned, topology, v.fits) for v in verdicts]))
    found = [(v.runs[0], v.best) for v in verdicts if v.best is not None and len(v.tried) > 1]
    if found:
        rows = [_row(run, answer, topology, True) for run, answer in found]
        print(plain("Shortest roofline of those that fit", HEADER, rows))
    print(plain("Collectives of the planned settings", COLLECTIVES, [row for v in verdicts for row in _collectives(v)]))
    whose = "as XLA:CPU compiles for this host: not the TPU's" if on_host else "as the TPU compiler says"
    print(NOT_A_FORECAST.format(whose=whose) + "\n")


def _row(run: RunSpec, answer: Compiled, topology: Topology, fits: bool | None) -> tuple[str, ...]:
    run = answer.setting.of(run)
    hardware = run.hardware
    row = (
        run.family.value,
        run.cell.size,
        short_number(count_parameters(run.model).non_embedding),
        str(run.optim.global_batch),
        str(run.data.seq_len),
        hardware.mesh,
        _policies(run),
        str(run.optim.global_batch // hardware.row_shards // hardware.microbatches),
        f"{answer.hbm_bytes / GIB:.2f}" if answer.hbm_bytes else "?",
        {True: "yes", False: "no", None: "?"}[fits],
    )
    if answer.refused or answer.failed:
        return (*row, "", f"{answer.compile_seconds:.0f}", "", "", "")
    line = bound(run, topology, answer)
    step = (f"{1e3 * line.seconds:.1f}", line.binds, f"{line.mfu:.2f}")
    return (*row, f"{answer.sent_bytes / 1e9:.2f}", f"{answer.compile_seconds:.0f}", *step)


def _policies(run: RunSpec) -> str:
    """The run's policy of recomputation, or `6 full + 18 dots` if its layers have two."""
    policies = run.hardware.layer_policies(run.model.n_layers)
    return policies[0][0].value if len(policies) == 1 else " + ".join(f"{n} {remat.value}" for remat, n in policies)


def _collectives(verdict: Verdict) -> list[tuple[str, ...]]:
    run = verdict.runs[0]
    return [
        (run.family.value, run.cell.size, kind, f"{numbers['times']:.0f}", f"{numbers['sent_bytes'] / 1e9:.3f}")
        for kind, numbers in verdict.planned.collectives.items()
    ]
