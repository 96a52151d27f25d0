"""Preflight: does each run fit the slice it is planned for? The real TPU compiler answers, and no TPU is needed.

    python -m isoflop.preflight runs/mine --topology v5e:4x4
    python -m isoflop.preflight runs/mine --topology v5p:2x2x4 --mesh 16x1 --write
    python -m isoflop.preflight runs/mine --topology v5e:4x4 --slices 2 --mesh 2x16x1

A shape is a model, batch, row length and training loss; seeds, steps and learning rates do not matter. The train step
of every shape in the plan is compiled ahead of time for the mesh of its `hardware` section. The report gives the
compiler's memory on each device, the settings that fit, the bytes that collectives send, and a roofline of the step.
A shape that does not fit is refused, with the nearest setting that fits; the exit code is then 1. The numbers of each
shape are written to DIR/preflight.json at once. The next preflight of the same slice reuses them, also after Ctrl-C;
delete the file to compile everything again. Without libtpu (`pip install mdm-jax[tpu]`) the step is
compiled for CPU devices of this host. That tells whether it compiles and what it sends, but not the TPU's memory.
"""

import argparse
import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence

from isoflop.planfile import read_plan
from isoflop.preflight.compile import program_of
from isoflop.preflight.examination import Examination, say
from isoflop.preflight.report import Report
from isoflop.preflight.table import show
from isoflop.preflight.topology import Topology, find_mesh, find_topology
from isoflop.preflight.verdict import Verdict
from mdm_jax.command import BAD, DONE, comma_list, exit_code, new_parser
from mdm_jax.files.layout import PLAN_FILE, RUNS_FOLDER
from mdm_jax.files.storage import as_path, write_atomic
from mdm_jax.spec import RunSpec, to_json
from mdm_jax.spec.validation import require


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 if a shape does not fit or after one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _preflight(options))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("isoflop.preflight", __doc__)
    add = parser.add_argument
    add("directory", metavar="DIR", help="the sweep's directory, which holds plan.jsonl")
    add("--topology", required=True, metavar="SLICE", help="such as v5e:4x4 or v5p:2x2x4")
    add("--slices", type=int, default=1, metavar="N", help="compile for N such slices, each with replicas of its own")
    mesh = "in place of the plan's mesh, such as 16x1 or (with 2 replicas) 2x16x1; all devices of the slices"
    add("--mesh", metavar="[REPLICAx]DATAxMODEL", help=mesh)
    add("--sizes", type=comma_list, default=(), metavar="SIZE,…", help="only runs of these sizes")
    add("--quick", action="store_true", help="compile only the planned settings, and search for no others")
    add("--write", action="store_true", help="write mesh and setting into the plan's runs that have not started")
    add("--time-limit", type=float, default=1800.0, metavar="S", help="seconds for one compilation (1800)")
    add("--host", action="store_true", help="compile for CPU devices of this host even if libtpu is installed")
    return parser


def _preflight(options: argparse.Namespace) -> int:
    topology = find_topology(options.topology, options.slices)
    require(options.time_limit > 0, "--time-limit", options.time_limit, "above 0 seconds")
    planned = read_plan(options.directory)
    chosen = [run for run in planned if not options.sizes or run.cell.size in options.sizes]
    known = ", ".join(sorted({run.cell.size for run in planned}))
    require(bool(chosen), "--sizes", ",".join(options.sizes), f"sizes of the plan: {known}")
    groups = list(shapes([on_mesh(run, options.mesh, topology) for run in chosen]))
    on_host = options.host or importlib.util.find_spec("libtpu") is None
    report = Report(options.directory, topology, on_host, [group[0] for group in groups])
    say(f"{len(groups)} shapes of {len(chosen)} runs on {topology.name}")
    if on_host:
        say(HOST_ONLY.format(topology=topology.name, devices=topology.devices))
    verdicts = Examination(topology, on_host, report, options.quick, options.time_limit).examine_all(groups)
    show(verdicts, topology, on_host)
    print(f"{report.path}: {len(verdicts)} shapes of {len(chosen)} runs")
    if options.write:
        print(write_settings(options.directory, verdicts))
    return BAD if any(v.fits is False or v.planned.failed for v in verdicts) and not options.write else DONE


HOST_ONLY = (
    "without libtpu: compiling for {devices} CPU devices of this host instead of {topology}. Memory figures are"
    " XLA:CPU's and say nothing about the TPU; for the TPU's figures, pip install mdm-jax[tpu]"
)


def on_mesh(run: RunSpec, mesh: str | None, topology: Topology) -> RunSpec:
    """The run on this mesh ([REPLICAx]DATAxMODEL), or on its planned mesh if `mesh` is None.

    Raises:
        ValueError: the mesh has more or fewer devices than the slices, a replica would lie in several slices, or the
            mesh does not divide the run's shape.
    """
    hardware = run.hardware
    if mesh is not None:
        replica, data, model = find_mesh(mesh)
        hardware = dataclasses.replace(hardware, mesh_replica=replica, mesh_data=data, mesh_model=model)
    fits = hardware.devices == topology.devices and hardware.mesh_replica % topology.slices == 0
    bound = f"of the {topology.devices} devices of {topology.name}: --mesh {topology.mesh}"
    planned = f"run.hardware.mesh_data={topology.devices_of_slice}"
    if topology.slices > 1:
        bound = f"a multiple of {topology.slices} replicas, {bound}"
        planned += f" run.hardware.mesh_replica={topology.slices}"
    require(
        fits,
        f"mesh of {run.run_id}" if mesh is None else "--mesh",
        hardware.mesh,
        f"{bound}, or {planned} when planning",
    )
    largest = run.optim.global_batch // (2 * hardware.row_shards)
    if mesh is not None and largest and largest % hardware.microbatches:
        hardware = dataclasses.replace(hardware, microbatches=1)
    return dataclasses.replace(run, hardware=hardware)


def shapes(runs: Sequence[RunSpec]) -> Iterator[tuple[RunSpec, ...]]:
    """Groups of runs; the runs of a group compile to the same program."""
    groups: dict[RunSpec, list[RunSpec]] = {}
    for run in runs:
        groups.setdefault(program_of(run), []).append(run)
    yield from (tuple(group) for group in groups.values())


def write_settings(directory: str, verdicts: Sequence[Verdict]) -> str:
    """Writes the best setting of each shape into the plan, except for started runs. Returns a line that says so.

    Hardware is recorded and not hashed, so every run keeps its id.
    """
    folder = as_path(directory)
    found: dict[str, RunSpec] = {}
    for verdict in verdicts:
        answer = verdict.best or (verdict.planned if verdict.limit_bytes is None else None)
        if answer is not None:
            waiting = (run for run in verdict.runs if not (folder / RUNS_FOLDER / run.run_id).exists())
            found |= {run.run_id: answer.setting.of(run) for run in waiting}
    lines = [to_json(found.get(run.run_id, run)) for run in read_plan(directory)]
    write_atomic(folder / PLAN_FILE, "".join(line + "\n" for line in lines))
    return f"{folder / PLAN_FILE}: hardware of {len(found)} runs written; a run that has started keeps its own"


if __name__ == "__main__":
    raise SystemExit(main())
