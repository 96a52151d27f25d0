"""Refinement: reads the results of a sweep and proposes the most informative further runs.

    python -m isoflop.refine runs/quickstart
    python -m isoflop.refine runs/quickstart --budget-flops 1e13 --accept

Proposals come in this order: a new budget if the two families reach no common loss; sizes or seeds for a budget without
a usable minimum; a retry of a run that diverged; runs that narrow the gap's interval for the fewest FLOPs; a run where
the optimal size is least certain. Only --accept writes, and it only appends to DIR/plan.jsonl.
"""

import argparse
import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from isoflop.cost import Machine, machine_of
from isoflop.measured import measured_machine
from isoflop.planfile import read_plan, write_plan
from isoflop.refine.evidence import CURVES, Evidence, read_evidence
from isoflop.refine.proposal import TITLES, Kind, flops_of
from isoflop.refine.propose import MOST_RUNS, Refinement, refine
from isoflop.wording import duration, money
from mdm_jax.command import DONE, exit_code, new_parser, refuse_hidden
from mdm_jax.devices.accelerators import DEVICES
from mdm_jax.files.layout import PLAN_FILE
from mdm_jax.files.storage import as_path
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import require


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 after one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _refine(options))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("isoflop.refine", __doc__)
    add = parser.add_argument
    add("directory", metavar="DIR", help="a sweep with plan.jsonl and results")
    add("--accept", action="store_true", help="append the proposed runs to the plan; without it nothing is written")
    add("--budget-flops", type=float, default=math.inf, metavar="C", help="most FLOPs of all proposed runs together")
    add("--max-runs", type=int, default=MOST_RUNS, metavar="N", help="most runs of all together (%(default)s)")
    add("--loss", type=float, metavar="NATS", help="loss at which the gap is read (middle of the common losses)")
    add("--curve", choices=CURVES, default=CURVES[0], help="fitted to the loss in log N (%(default)s)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these runs, such as group=exact")
    kinds = f"machine of the estimates: {', '.join(DEVICES)}, here (default: measured from the sweep's runs)"
    add("--hardware", metavar="KIND:N", help=kinds)
    add("--mfu", type=float, metavar="X", help="share of the peak that training reaches")
    add("--price", type=float, metavar="$", help="dollars a device-hour")
    add("--flops-per-second", type=float, metavar="F", help="FLOP/s, in place of --hardware")
    add("--run-overhead", type=float, metavar="S", help="fixed seconds a run: start, imports, compilation")
    add("--json", action="store_true", help="everything as JSON in place of text")
    return parser


def _refine(options: argparse.Namespace) -> int:
    require(options.budget_flops > 0, "--budget-flops", options.budget_flops, "above 0")
    require(options.max_runs >= 1, "--max-runs", options.max_runs, "at least 1")
    loss = options.loss
    require(loss is None or 0 < loss < math.inf, "--loss", loss, "above 0 nats")
    refuse_hidden("analysis")
    evidence = read_evidence(options.directory, options.where, options.curve, loss)
    found = refine(evidence, options.budget_flops, options.max_runs)
    machine, stated = _machine(options, evidence)
    added = _accept(options.directory, found.runs) if options.accept and found.runs else None
    if options.json:
        print(json.dumps(_tree(found, machine, stated, added), indent=1, allow_nan=False))
    else:
        print("\n".join(_text(options.directory, found, machine, stated, added)))
    return DONE


def _machine(options: argparse.Namespace, evidence: Evidence) -> tuple[Machine, str]:
    """The machine that times and money are estimated for, and its description."""
    measured = measured_machine(evidence.timed)
    machine = machine_of(options, measured or Machine())
    if measured is None or options.hardware is not None or options.flops_per_second is not None:
        return machine, machine.description
    fixed, step = f"{machine.run_overhead_seconds:.2g} s a run", f"{1000 * machine.step_seconds:.2g} ms a step"
    at = f"{machine.peak_flops_per_second:.3g} FLOP/s, {fixed} and {step}"
    return (
        machine,
        f"one run after the other at {at}, as this sweep's runs measured (--hardware v5e:16 for another machine)",
    )


def _accept(directory: str | os.PathLike[str], runs: Sequence[RunSpec]) -> int:
    """Appends the runs to the plan. Returns the number of runs that the plan did not have."""
    return write_plan(directory, (*read_plan(directory), *runs)).added


def _text(directory: str, found: Refinement, machine: Machine, stated: str, added: int | None) -> Iterator[str]:
    evidence = found.evidence
    yield f"{directory}: {len(evidence.plan)} planned runs, {len(evidence.usable)} of them in the fits"
    if math.isfinite(evidence.loss):
        low, high = evidence.interval
        interval = "" if math.isnan(low) else f", 95% interval {low:.3g} to {high:.3g}"
        yield f"gap at {evidence.loss:.4g} nats: {evidence.ratio:.3g}{interval} ({evidence.convention.value})"
    number = 0
    for kind in Kind:
        of_kind = [proposal for proposal in found.proposals if proposal.kind is kind]
        if of_kind:
            yield f"\n{TITLES[kind]}"
        for proposal in of_kind:
            number += 1
            time = duration(sum(machine.seconds(run) for run in proposal.runs))
            yield f"{number:3d}. {proposal.what}  [{proposal.flops:.2e} FLOPs, {time}]"
            yield f"     {proposal.why}"
            yield f"     expected: {proposal.effect}"
    yield ""
    yield from (f"note: {note}" for note in found.notes)
    if not found.proposals:
        yield "nothing to propose"
        return
    runs = found.runs
    total = duration(sum(machine.seconds(run) for run in runs))
    price = machine.price(runs)
    cost = "" if price is None else f" and {money(price)}"
    yield f"in all {len(runs)} runs, {flops_of(runs):.2e} FLOPs, {total}{cost}: {stated}"
    if added is None:
        yield f"nothing is written: --accept appends them to {as_path(directory) / PLAN_FILE}"
    else:
        yield f"{as_path(directory) / PLAN_FILE}: {added} runs appended"
        yield f"next: python -m isoflop.run {shlex.quote(directory)}"


def _tree(found: Refinement, machine: Machine, stated: str, added: int | None) -> dict[str, Any]:
    """Everything that is printed, as JSON types."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    evidence = found.evidence
    gap = {
        "loss": number(evidence.loss),
        "ratio": number(evidence.ratio),
        "lower": number(evidence.interval[0]),
        "upper": number(evidence.interval[1]),
        "interval_factor": number(found.gap_factor),
        "interval_factor_after": number(found.gap_factor_after),
        "convention": evidence.convention.value,
    }
    names = ("kind", "what", "why", "effect", "family", "budget", "flops", "value")
    proposals = [
        {name: getattr(proposal, name) for name in names}
        | {"seconds": sum(machine.seconds(run) for run in proposal.runs), "runs": [*map(_run_tree, proposal.runs)]}
        for proposal in found.proposals
    ]
    notes = {"seconds_are_for": stated, "notes": list(found.notes)}
    return {"gap": gap, "proposals": proposals, **notes, "appended": added}


def _run_tree(run: RunSpec) -> dict[str, Any]:
    optim = {"lr": run.optim.lr_peak, "batch": run.optim.global_batch, "steps": run.schedule.steps}
    return {"run_id": run.run_id, "size": run.cell.size, "seed": run.seed, **optim}


if __name__ == "__main__":
    raise SystemExit(main())
