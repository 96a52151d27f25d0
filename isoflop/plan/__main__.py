"""Planner: writes `plan.jsonl` from budgets and sizes, and prints one screen. It takes under a second, without jax.

    python -m isoflop.plan --config experiments/quickstart.py --out runs/quickstart
    python -m isoflop.plan --budgets 6e18,1e19,3e19 --overlap mdm --holdout 1e20 --hardware v5e:16 --out runs/mine
    python -m isoflop.plan --budgets 6e18,1e19 --sizes 113,170,231 --out runs/mine
    python -m isoflop.plan --config experiments/quickstart.py --hours 2 --jobs 2 --out runs/two_hours

Without --config, the settings are SMDM's (rows of 2048, vocabulary 32000, batch 256, recipe smdm_code). --set changes
any key of the experiment's `run` and `sweep` sections. Without --sizes, a rule places sizes around the optimum that a
prior expects, and the screen warns where the sweep breaks the rule. The plan is a pure function of these inputs, the
prior and the corpus manifest.
"""

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import ml_collections

from isoflop.corpus import check_corpora, find_manifest
from isoflop.cost import (
    DEFAULT_MFU,
    DEFAULT_MFU_HERE,
    DEFAULT_OVERHEAD_SECONDS,
    DEFAULT_OVERHEAD_SECONDS_HERE,
    Machine,
    doubts,
    machine_of,
    sweep_seconds,
)
from isoflop.grid import check_bounds, make_grid
from isoflop.place.advice import Advice, advise
from isoflop.place.expand import expand
from isoflop.place.from_time import MOST_HOURS, largest_scale, scale_lines, scaled
from isoflop.plan.alarms import repeats_too_often, too_long
from isoflop.plan.screen import show_screen, show_warnings
from isoflop.plan.settings import FAMILIES, config_of
from isoflop.plan.table import show_cells, show_forecasts, show_totals
from isoflop.planfile import Written, write_plan
from isoflop.recipe import RECIPES
from isoflop.sweep import SweepSpec
from isoflop.trunks import savings, with_trunks
from isoflop.wording import wrapped
from mdm_jax.command import DONE, comma_list, exit_code, new_parser, numbers
from mdm_jax.data.manifest import check_matches
from mdm_jax.devices.accelerators import DEVICES
from mdm_jax.files.fingerprint import with_fingerprint
from mdm_jax.files.layout import PLAN_FILE
from mdm_jax.files.storage import as_path, is_local
from mdm_jax.spec import HardwareSpec, RunSpec, ScheduleKind
from mdm_jax.spec.validation import build, require

MOST_NAMED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 after one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _plan(options))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("isoflop.plan", __doc__)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="the sweep's directory: DIR/plan.jsonl is written")
    add("--config", metavar="FILE", help="an experiment file (Python that is executed: use only files that you trust)")
    add("--budgets", type=numbers, metavar="C,…", help="training FLOPs of the curves, such as 6e18,1e19")
    add("--sizes", type=comma_list, metavar="SIZE,…", help="with --budgets: all of these (6 … 2121, or LAYERSxWIDTH)")
    add("--prior", metavar="FILE", help="tiny (for CPUs), or the fits.json of a report; default SMDM's laws")
    add("--overlap", choices=FAMILIES, help="--budgets are this family's; the other's have the same expected losses")
    add("--holdout", type=numbers, metavar="C,…", help="budgets above the grid, kept for testing the laws")
    add("--families", type=comma_list, metavar="F,…", help="default mdm,arm; alone, only these curves of the config")
    add("--seq-len", type=int, metavar="L", help="tokens a row")
    add("--vocab-size", type=int, metavar="V", help="257: bytes, 6: nucleotides; others: sentencepiece, trained here")
    add("--batch", type=int, metavar="B", help="sequences a step, in place of the recipe's")
    add("--recipe", metavar="NAME", help=f"one of {', '.join(RECIPES)}")
    add("--data", metavar="DIR", help="the prepared corpus; its manifest sets corpus, tokenizer and vocabulary")
    add("--hours", type=float, metavar="H", help="scale all budgets by one factor, so that the sweep takes H hours")
    add("--jobs", type=int, default=1, metavar="N", help="with --hours: runs at a time, as in isoflop.run (default 1)")
    add("--cells", action="store_true", help="print every cell, under every FLOP convention, and all notes")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="any key, such as sweep.seeds=[0,1]")
    add("--hardware", metavar="KIND:N", help=f"machine of the estimates: {', '.join(DEVICES)}, or here")
    mfu = f"share of the peak that training reaches (default {DEFAULT_MFU}; with --hardware here {DEFAULT_MFU_HERE})"
    add("--mfu", type=float, metavar="X", help=mfu)
    add("--price", type=float, metavar="$", help="dollars a device-hour; without it no cost is shown")
    speed = f"FLOP/s, in place of --hardware (default {Machine().peak_flops_per_second:g}, two CPU cores)"
    add("--flops-per-second", type=float, metavar="F", help=speed)
    usual = f"{DEFAULT_OVERHEAD_SECONDS:g} on accelerators, else {DEFAULT_OVERHEAD_SECONDS_HERE:g}"
    fixed = f"fixed seconds a run: start, imports, compilation (default {usual})"
    add("--run-overhead", type=float, metavar="S", help=fixed)
    return parser


def _plan(options: argparse.Namespace) -> int:
    machine = machine_of(options, Machine())
    planned = _plan_of_flags(options, machine)
    written = write_plan(options.out, planned.runs)
    advice, room = planned.advice, None
    if options.cells:
        show_cells(written.runs, machine, planned.unique_tokens)
        show_forecasts(advice.curves, planned.window)
        show_totals(written.runs, machine)
        for note in advice.notes:
            print(wrapped(f"note: {note}"))
    else:
        room = show_screen(written.runs, machine, planned.unique_tokens, advice.curves)
    if any(run.cell.parent_run_id for run in written.runs):
        print(savings(written.runs, written.runs[0].cell.convention))
    alarms = (*advice.alarms, *too_long(written.runs, machine), *doubts(written.runs, machine))
    show_warnings(alarms, advice.warnings, room)
    if written.repaired:
        lost = "a line that a refinement appended is lost if its run has not started: refine again"
        print(wrapped(f"{written.repaired} damaged line(s) of the older plan written anew; {lost}"))
    if written.dropped:
        print(wrapped(f"left the plan: {_dropped(written)}"))
    _show_next(options, planned, written)
    return DONE


def _show_next(options: argparse.Namespace, planned: "Planned", written: Written) -> None:
    """Prints the plan's path and what to type next."""
    print(f"{as_path(options.out) / PLAN_FILE}: {len(written.runs)} runs, {written.added} of them new")
    if not options.cells:
        print(wrapped("every cell and FLOP convention, and what the numbers rest on: the same command with --cells"))
    if planned.unique_tokens is None:
        settings = ["--set", *options.set] if options.set else []
        own = shlex.join(["--config", options.config or "", *settings])
        whose = own if options.config else "--out DIR, then plan with --data DIR"
        print(f"next: python -m mdm_jax.data.prepare {whose}")
    jobs = f" --jobs {options.jobs}" if options.jobs > 1 else ""
    when = "then" if planned.unique_tokens is None else "next"
    if is_local(options.out):
        print(f"{when}: python -m isoflop.run {shlex.quote(options.out)}{jobs}")
    else:
        one = f"python -m mdm_jax.main --plan {shlex.quote(options.out)} --run-id ID --distributed"
        print(f"{when}: {one}\n  for each run, on every host; docs/sweeps.md has the loop")


def _plan_of_flags(options: argparse.Namespace, machine: Machine) -> "Planned":
    """The plan that the flags ask for. With --hours, its budgets are scaled and the scale is printed."""
    config, hours, jobs = config_of(options), options.hours, options.jobs
    if hours is None:
        require(jobs == 1, "--jobs", jobs, "left out without --hours")
        return plan_config(config)
    require(0 < hours <= MOST_HOURS, "--hours", hours, f"above 0 and at most {MOST_HOURS:g}")
    require(jobs >= 1, "--jobs", jobs, "at least 1")
    require(not options.sizes, "--sizes", ",".join(options.sizes or ()), "left out with --hours, which moves the sizes")
    scale = largest_scale(lambda f: sweep_seconds(plan_config(config, f).runs, machine.seconds, jobs), hours * 3600)
    planned = plan_config(config, scale.factor)
    for said in scale_lines(scale, planned.runs, hours, jobs):
        print(wrapped(said))
    return planned


def _dropped(written: Written) -> str:
    """The runs that a plan no longer has, and what happens to their folders."""
    names = ", ".join(written.dropped[:MOST_NAMED])
    more = f" and {len(written.dropped) - MOST_NAMED} more" if len(written.dropped) > MOST_NAMED else ""
    return (
        f"{len(written.dropped)} run(s) that failed, or had neither result nor checkpoint: {names}{more};"
        " their folders stay, and the report counts those that failed as left out"
    )


@dataclass(frozen=True)
class Planned:
    """A plan before it is written."""

    runs: tuple[RunSpec, ...]
    advice: Advice
    window: float
    """Factor around the expected optimum within which sizes count."""
    unique_tokens: int | None
    """Tokens of one epoch over the corpus; None if it is not prepared."""


def plan_config(config: ml_collections.ConfigDict, factor: float = 1.0) -> Planned:
    """The runs of an experiment, with all budgets times `factor`, and the advice on them.

    Raises:
        ValueError: anything wrong with the config, its prior, its corpus or a cell; one line names it.
    """
    sections = config.to_dict()
    hardware = build(HardwareSpec, sections["run"].pop("hardware"), "run.hardware.")
    template = with_fingerprint(build(RunSpec, sections["run"], "run."))
    sweep = build(SweepSpec, sections["sweep"], "sweep.")
    manifest = find_manifest(template.data.directory)
    if manifest:
        check_matches(manifest, template.data)
        data = dataclasses.replace(template.data, data_hash=manifest.data_hash)
        template = dataclasses.replace(template, data=data)
    sweep = expand(template, scaled(template, sweep, factor))
    runs = make_grid(template, sweep, hardware)
    check_corpora(runs, prepared=False)
    unique = manifest.positions("train", template.data.seq_len) if manifest else None
    advice = advise(template, sweep)
    corpus = check_bounds(runs, unique, sweep)
    if repeats_too_often(runs, unique):
        advice = dataclasses.replace(advice, alarms=(*advice.alarms, *corpus))
    else:
        advice = dataclasses.replace(advice, warnings=(*corpus, *advice.warnings))
    if template.schedule.kind is ScheduleKind.WSD:
        runs = with_trunks(runs, sweep.cooldown_fraction, sweep.trunk_warmup_budget)
    return Planned(runs, advice, sweep.placement.window, unique)


if __name__ == "__main__":
    raise SystemExit(main())
