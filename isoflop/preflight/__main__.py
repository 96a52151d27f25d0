"""Preflight: does each run fit the slice it is planned for? The real TPU compiler answers, and no TPU is needed.

    python -m isoflop.preflight runs/mine --topology v5e:4x4
    python -m isoflop.preflight runs/mine --topology v5p:2x2x4 --mesh 16x1 --write

Every distinct shape of the plan (model, batch, row length, training loss; not seeds, steps or learning rates) is
compiled as the train step that the run would execute, ahead of time, for the mesh of its `hardware` section. Reported
are the compiler's memory on each device, the settings that fit, what the collectives send, and a roofline of the step.
A shape that does not fit is refused with the nearest setting that does; the exit code is then 1. The numbers are
written to DIR/preflight.json. Without libtpu (`pip install mdm-jax[tpu]`) the step is compiled for CPU devices of this
host: that shows that it compiles and what it sends, and nothing about the TPU's memory.
"""

import argparse
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from isoflop.cli import comma_list, exit_code, new_parser
from isoflop.planfile import PLAN_FILE, RUNS_FOLDER, read_plan
from isoflop.preflight.compile import Compiled, Setting, compile_run
from isoflop.preflight.table import show
from isoflop.preflight.topology import Topology, find_mesh, find_topology
from isoflop.preflight.verdict import Verdict, advice, examine, report
from mdm_jax.command import BAD, DONE
from mdm_jax.files.storage import as_path, write_atomic
from mdm_jax.spec import CellSpec, EvaluationSpec, RunSpec, ScheduleSpec, to_json
from mdm_jax.spec.validation import require

REPORT_FILE = "preflight.json"
SCHEMA_VERSION = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 where a shape does not fit or after one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    return exit_code("isoflop.preflight", lambda: _preflight(options))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("isoflop.preflight", __doc__)
    add = parser.add_argument
    add("directory", metavar="DIR", help="the sweep's directory, which holds plan.jsonl")
    add("--topology", required=True, metavar="SLICE", help="such as v5e:4x4 or v5p:2x2x4")
    add("--mesh", metavar="DATAxMODEL", help="in place of the plan's, such as 16x1: the devices of the slice")
    add("--sizes", type=comma_list, default=(), metavar="SIZE,…", help="only runs of these sizes")
    add("--quick", action="store_true", help="compile the planned settings alone, and search for no others")
    add("--write", action="store_true", help="write mesh and setting into the plan's runs that have not started")
    add("--time-limit", type=float, default=1800.0, metavar="S", help="seconds for one compilation (1800)")
    add("--host", action="store_true", help="compile for CPU devices of this host although libtpu is there")
    return parser


def _preflight(options: argparse.Namespace) -> int:
    topology = find_topology(options.topology)
    require(options.time_limit > 0, "--time-limit", options.time_limit, "above 0 seconds")
    planned = read_plan(options.directory)
    chosen = [run for run in planned if not options.sizes or run.cell.size in options.sizes]
    known = ", ".join(sorted({run.cell.size for run in planned}))
    require(bool(chosen), "--sizes", ",".join(options.sizes), f"sizes of the plan: {known}")
    runs = [on_mesh(run, options.mesh, topology) for run in chosen]
    on_host = options.host or importlib.util.find_spec("libtpu") is None
    if on_host:
        print(HOST_ONLY.format(topology=topology.name, devices=topology.devices), file=sys.stderr)
    verdicts = []
    for shape in shapes(runs):
        verdicts.append(_examine(shape, topology, on_host, options))
        _say(verdicts[-1], topology)
    show(verdicts, topology, on_host)
    path = as_path(options.directory) / REPORT_FILE
    write_atomic(path, json.dumps(_report(verdicts, topology, on_host), indent=1) + "\n")
    print(f"{path}: {len(verdicts)} shapes of {len(runs)} runs")
    if options.write:
        print(write_settings(options.directory, verdicts))
    return BAD if any(v.fits is False or v.planned.failed for v in verdicts) and not options.write else DONE


def _examine(shape: tuple[RunSpec, ...], topology: Topology, on_host: bool, options: argparse.Namespace) -> Verdict:
    def compiled(setting: Setting) -> Compiled:
        return compile_run(setting.of(shape[0]), None if on_host else topology, options.time_limit)

    return examine(shape, topology, compiled, on_host, options.quick)


HOST_ONLY = (
    "libtpu is not asked: compiling for {devices} CPU devices of this host instead of {topology}. Memory figures are"
    " XLA:CPU's and say nothing about the TPU; for those pip install mdm-jax[tpu]"
)


def on_mesh(run: RunSpec, mesh: str | None, topology: Topology) -> RunSpec:
    """The run on the mesh that was asked for, or on its own.

    Raises:
        ValueError: the mesh has not as many devices as the slice, or does not divide the run's shape.
    """
    hardware = run.hardware
    if mesh is not None:
        data, model = find_mesh(mesh)
        hardware = dataclasses.replace(hardware, mesh_data=data, mesh_model=model)
    of_mesh = f"{hardware.mesh_data}x{hardware.mesh_model}"
    fits = hardware.mesh_data * hardware.mesh_model == topology.devices
    fix = f"--mesh {topology.devices}x1, or run.hardware.mesh_data={topology.devices} when planning"
    bound = f"of the {topology.devices} devices of {topology.name}: {fix}"
    require(fits, f"mesh of {run.run_id}" if mesh is None else "--mesh", of_mesh, bound)
    largest = run.optim.global_batch // (2 * hardware.mesh_data)
    if mesh is not None and largest and largest % hardware.microbatches:
        hardware = dataclasses.replace(hardware, microbatches=1)
    return dataclasses.replace(run, hardware=hardware)


def shapes(runs: Sequence[RunSpec]) -> Iterator[tuple[RunSpec, ...]]:
    """The runs in groups that compile to one program."""
    groups: dict[RunSpec, list[RunSpec]] = {}
    for run in runs:
        optim = dataclasses.replace(run.optim, lr_peak=1e-3)
        data = dataclasses.replace(run.data, directory="", data_hash="")
        schedule = ScheduleSpec(kind=run.schedule.kind)
        evaluation = EvaluationSpec(batch=2 * run.hardware.mesh_data)
        shape = dataclasses.replace(
            run, optim=optim, data=data, schedule=schedule, evaluation=evaluation, cell=CellSpec(), seed=0
        )
        groups.setdefault(shape, []).append(run)
    yield from (tuple(group) for group in groups.values())


def _say(verdict: Verdict, topology: Topology) -> None:
    """One line on stderr as soon as a shape is done: a plan of many takes an hour."""
    run, planned = verdict.runs[0], verdict.planned
    state = {True: "fits", False: "does not fit", None: planned.failed or "compiled"}[verdict.fits]
    seconds = sum(answer.compile_seconds for answer in verdict.tried)
    print(
        f"{run.family.value} {run.cell.size} {state}: {len(verdict.tried)} compiled in {seconds:.0f} s", file=sys.stderr
    )
    if verdict.fits is False or planned.failed:
        print(advice(verdict, topology), file=sys.stderr)


def write_settings(directory: str, verdicts: Sequence[Verdict]) -> str:
    """Writes the best setting of each shape into the plan, and says what was done; started runs stay as they are.

    Hardware is recorded and not hashed, so every run keeps its id.
    """
    folder = as_path(directory)
    found: dict[str, RunSpec] = {}
    for verdict in verdicts:
        answer = verdict.best or (verdict.planned if verdict.limit_bytes is None else None)
        for run in verdict.runs if answer else ():
            if not (folder / RUNS_FOLDER / run.run_id).exists():
                found[run.run_id] = answer.setting.of(run)  # type: ignore[union-attr]  # the loop is empty without one
    lines = [to_json(found.get(run.run_id, run)) for run in read_plan(directory)]
    write_atomic(folder / PLAN_FILE, "".join(line + "\n" for line in lines))
    return f"{folder / PLAN_FILE}: hardware of {len(found)} runs written; a run that has started keeps its own"


def _report(verdicts: Sequence[Verdict], topology: Topology, on_host: bool) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "topology": topology.name,
        "compiler": "XLA:CPU of this host, whose memory figures are not the TPU's" if on_host else "libtpu",
        "limit_bytes": None if on_host else topology.chip.hbm_bytes,
        "shapes": [report(verdict, topology) for verdict in verdicts],
    }


if __name__ == "__main__":
    raise SystemExit(main())
