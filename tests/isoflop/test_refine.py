"""Refinement on sweeps whose truth is known: a loss surface stands in for the training, everything else is real."""

import dataclasses
import json
import math
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from imitated_sweep import ARM, GRID, SD, SURFACES, Sweep, gap_variance, grid, result, status

from isoflop.grid import make_grid
from isoflop.planfile import read_plan, write_plan
from isoflop.refine.__main__ import main
from isoflop.refine.evidence import read_evidence
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.proposal import Kind, Limits, flops_of
from isoflop.refine.propose import refine
from isoflop.refine.rungs import non_embedding, size_of
from isoflop.refine.sharper import Candidates, sharper_gap
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.files.results import write_result
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.spec import CellSpec, Family, HardwareSpec, RunSpec
from mdm_jax.spec.counting import train_flops

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The directory of a finished sweep, one budget of it at an edge; copied by whoever writes."""
    directory = tmp_path_factory.mktemp("refine") / "sweep"
    plan = grid(GRID, {(Family.ARM, GRID[Family.ARM][0]): 1.6})
    write_plan(directory, plan)
    for run in plan:
        row = result(run, SD)
        (directory / "runs" / row.run_id).mkdir(parents=True)
        write_result(directory / "runs" / row.run_id / "result.json", row)
    return directory


def on_surface(family: str, budget: float, n: float) -> float:
    return float(SURFACES[Family(family)].loss(n, budget / 6 / n))


@pytest.mark.slow
def test_greedy_beats_random_runs_for_the_same_flops() -> None:
    evidence = Sweep(grid(GRID)).evidence
    further = FurtherRuns(evidence.plan, evidence.usable)
    base = [(r.family.value, r.cell.budget or 0.0, float(non_embedding(size_of(r)))) for r in evidence.plan]
    spend = 1.5e14

    def variance(runs: Sequence[RunSpec]) -> float:
        added = [(r.family.value, r.cell.budget or 0.0, float(non_embedding(size_of(r)))) for r in runs]
        return gap_variance([*base, *added], evidence.loss, on_surface, 400)

    limits = Limits(spend, 1000)
    proposals, known = sharper_gap(Candidates(evidence, further), evidence.knowledge, limits, evidence.gap_factor)
    assert known.gap_variance < evidence.knowledge.gap_variance
    greedy = [run for proposal in proposals for run in proposal.runs]
    assert flops_of(greedy) <= spend
    rng = np.random.default_rng(0)
    candidates, others = [candidate.run for candidate in Candidates(evidence, further)], []
    for _ in range(8):
        limits, chosen = Limits(spend, 1000), []
        while fitting := [run for run in candidates if limits.fits([run])]:
            chosen.append(fitting[rng.integers(len(fitting))])
            limits.flops -= flops_of(chosen[-1:])
        others.append(variance(chosen))
    assert variance(greedy) < min(others)
    assert variance(greedy) < 0.8 * np.mean(others)


# what is missing


@pytest.mark.parametrize(("family", "off"), [(Family.ARM, 2.0), (Family.MDM, -1.6), (Family.MDM, 2.2)])
def test_edge_budget_becomes_ok_once_the_proposal_has_run(family: Family, off: float) -> None:
    budget = GRID[family][1]
    sweep = Sweep(grid(GRID, {(family, budget): off}), sd=0.002)
    assert status(sweep.evidence, family, budget) in ("edge", "no_minimum")
    for _ in range(2):  # a step beyond an edge is at most a factor of four
        evidence = sweep.evidence
        if status(evidence, family, budget) != "ok":
            (first, *_) = refine(evidence).proposals
            assert (first.kind, first.family, first.budget) == (Kind.MINIMUM, family, budget)
            sizes = [non_embedding(size_of(run)) for run in first.runs]
            before = [non_embedding(size_of(r)) for r in sweep.plan if (r.family, r.cell.budget) == (family, budget)]
            assert max(sizes) < min(before) if off > 0 else min(sizes) > max(before)
            sweep.accept(first.runs)
            sweep.finish()
    assert status(sweep.evidence, family, budget) == "ok"


def test_too_few_sizes_are_filled_around_the_law() -> None:
    budget = 5e12
    curve = CurveSpec(Family.ARM, budget, ("2x64", "2x72"))
    more = make_grid(RunSpec(), SweepSpec(curves=(curve,), recipe="tiny"), HardwareSpec())
    sweep = Sweep([*grid(GRID), *more], sd=0.002)
    evidence = sweep.evidence
    assert status(evidence, Family.ARM, budget) == "too_few"
    first = refine(evidence).proposals[0]
    assert first.kind is Kind.MINIMUM
    expected = ARM.n_opt(budget)
    sizes = [non_embedding(size_of(run)) for run in first.runs]
    assert min(sizes) < expected < max(sizes)
    assert all(expected / 5 < n < expected * 5 for n in sizes)
    sweep.accept(first.runs)
    sweep.finish()
    assert status(sweep.evidence, Family.ARM, budget) == "ok"


def test_curve_without_a_minimum_gets_seeds_where_it_is_wide_and_ends_where_it_is_not() -> None:
    budget = GRID[Family.ARM][1]
    for kept in (7, 4):
        plan = [r for r in grid(GRID) if r.cell.budget != budget] + [r for r in grid(GRID) if r.cell.budget == budget][
            :kept
        ]
        sweep = Sweep(plan, sd=0.002)
        own = [run for run in plan if run.cell.budget == budget]
        for run in own:  # bent the wrong way
            row = sweep.rows[result(run, sweep.sd).run_id]
            row["loss"] = 9.0 - row["loss"]
        assert status(sweep.evidence, Family.ARM, budget) == "no_minimum"
        first = sweep.proposed().proposals[0]
        assert "no_minimum" in first.why
        n = [non_embedding(size_of(run)) for run in own]
        added = [non_embedding(size_of(run)) for run in first.runs]
        wide = max(n) / min(n) >= 8
        assert wide == (kept == 7)
        assert {run.seed for run in first.runs} == ({1} if wide else {0})
        assert (min(added), max(added)) == (min(n), max(n)) if wide else min(added) < min(n) < max(n) < max(added)


def test_budget_is_proposed_where_the_families_do_not_meet() -> None:
    budgets = {Family.ARM: (4e12, 2e13, 1e14), Family.MDM: (1e12, 4e12, 1.6e13)}
    sweep = Sweep(grid(budgets), sd=0.002)
    before = sweep.evidence
    assert math.isnan(before.loss)
    first = refine(before).proposals[0]
    assert (first.kind, first.family) == (Kind.OVERLAP, Family.ARM)
    assert first.budget < 4e12
    assert "do not overlap" in first.why
    reached = [m.loss for m in before.usable_minima(Family.MDM)]
    assert min(reached) < ARM.best_loss(first.budget) < max(reached)
    assert len(first.runs) == 7
    sweep.accept(first.runs)
    assert not any(p.kind is Kind.OVERLAP and p.budget == first.budget for p in sweep.proposed().proposals)
    sweep.finish()
    assert math.isfinite(sweep.evidence.loss)


def test_diverged_run_is_tried_again_at_half_its_rate_once() -> None:
    sweep = Sweep(grid(GRID))
    bad = sweep.plan[2]
    sweep.diverge(bad)
    (again,) = (p for p in sweep.proposed().proposals if p.kind is Kind.RETRY)
    (run,) = again.runs
    assert run.optim.lr_peak == bad.optim.lr_peak / 2
    assert dataclasses.replace(run, optim=bad.optim, cell=bad.cell) == bad
    assert bad.run_id in again.why
    sweep.accept([run])
    assert not any(p.kind is Kind.RETRY for p in sweep.proposed().proposals)
    sweep.diverge(run)
    (again,) = (p for p in sweep.proposed().proposals if p.kind is Kind.RETRY)
    assert again.runs[0].optim.lr_peak == bad.optim.lr_peak / 4


def test_unfinished_runs_are_named_and_not_proposed_again() -> None:
    budget = GRID[Family.ARM][1]
    sweep = Sweep(grid(GRID, {(Family.ARM, budget): 1.6}), sd=0.002)
    edge = sweep.proposed().proposals[0]
    assert (edge.kind, edge.budget) == (Kind.MINIMUM, budget)
    sweep.accept(edge.runs)
    found = sweep.proposed()
    assert not {run.run_id for run in sweep.plan} & {run.run_id for run in found.runs}
    assert not any(p.kind is Kind.MINIMUM and p.budget == budget for p in found.proposals)
    assert any("planned runs come first" in note and f"{budget:g} FLOPs" in note for note in found.notes)
    assert any("without a result" in note and edge.runs[0].run_id in note for note in found.notes)


def test_unfinished_runs_count_as_done() -> None:
    sweep = Sweep(grid(GRID))
    first = sweep.proposed(max_runs=8)
    sweep.accept(first.runs)
    second = sweep.proposed(max_runs=4)
    assert second.gap_factor <= first.gap_factor_after < first.gap_factor
    assert second.gap_factor == pytest.approx(first.gap_factor_after, rel=0.01)
    assert second.gap_factor_after < second.gap_factor


# limits and what is written


def test_limits_hold() -> None:
    evidence = Sweep(grid(GRID, {(Family.MDM, GRID[Family.MDM][1]): 1.8}), sd=0.01).evidence
    everything = refine(evidence)
    assert everything.proposals[0].kind is Kind.MINIMUM
    assert len(everything.runs) <= 12
    cap = everything.proposals[0].flops * 0.9
    small = refine(evidence, budget_flops=cap)
    assert flops_of(small.runs) <= cap
    assert not any(p.kind is Kind.MINIMUM for p in small.proposals)
    assert any(note.startswith("left out by the limits: mdm") for note in small.notes)
    assert len(refine(evidence, max_runs=1).runs) <= 1


def test_proposals_follow_the_urgency() -> None:
    found = Sweep(grid(GRID, {(Family.MDM, GRID[Family.MDM][1]): 1.8})).proposed(max_runs=30)
    order = [list(Kind).index(p.kind) for p in found.proposals]
    assert order == sorted(order)
    for kind in Kind:
        values = [p.value for p in found.proposals if p.kind is kind]
        assert kind is Kind.SIZE or values == sorted(values, reverse=True)
    assert {Kind.MINIMUM, Kind.GAP} <= {p.kind for p in found.proposals}
    ids = [run.run_id for run in found.runs]
    assert len(set(ids)) == len(ids)


def test_accepting_appends_runs_of_the_same_recipe(finished, tmp_path, capsys) -> None:
    before = (finished / "plan.jsonl").read_bytes()
    assert main([str(finished)]) == 0
    assert (finished / "plan.jsonl").read_bytes() == before
    assert "nothing is written" in capsys.readouterr().out
    directory = shutil.copytree(finished, tmp_path / "sweep")
    assert main([str(directory), "--accept"]) == 0
    after = (directory / "plan.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after) > len(before)
    assert "python -m isoflop.run" in capsys.readouterr().out
    planned = read_plan(directory)
    old, new = planned[: before.count(b"\n")], planned[before.count(b"\n") :]
    assert write_plan(directory, old).runs == planned  # planning again keeps what was accepted
    assert (directory / "plan.jsonl").read_bytes() == after
    assert all(run.cell.refined for run in new)
    for run in new:
        budget = run.cell.budget or 0.0
        assert 0.99 * budget <= train_flops(run, run.cell.convention) <= budget
        curve = CurveSpec(run.family, budget, (run.cell.size,), seeds=(run.seed,))
        (cell,) = make_grid(RunSpec(), SweepSpec(curves=(curve,), recipe="tiny"), HardwareSpec())
        assert cell.run_id == run.run_id  # the very run that the planner makes of this cell


def test_json_says_the_same(finished, capsys) -> None:
    assert main([str(finished), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    found = refine(read_evidence(finished))
    assert [p["what"] for p in tree["proposals"]] == [p.what for p in found.proposals]
    assert tree["gap"]["interval_factor"] == pytest.approx(found.gap_factor)
    assert sum(p["flops"] for p in tree["proposals"]) == flops_of(found.runs)
    assert all(p["seconds"] > 0 for p in tree["proposals"])
    assert tree["appended"] is None


def test_one_family_is_said_and_still_refined() -> None:
    plan = grid({Family.ARM: GRID[Family.ARM]}, {(Family.ARM, GRID[Family.ARM][0]): 1.8})
    found = Sweep(plan, sd=0.01).proposed()
    assert any("only the arm has results" in note for note in found.notes)
    assert found.proposals[0].kind is Kind.MINIMUM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "has a result: python -m isoflop.run"),
        ("--budget-flops 0", "--budget-flops = 0.0: must be above 0"),
        ("--max-runs 0", "--max-runs = 0"),
        ("--loss nan", "--loss = nan"),
        ("--curve akima", "--curve"),
        ("--where group=none", "where = 'group=none'"),
        ("--frobnicate", "--frobnicate"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments: str, said: str) -> None:
    write_plan(tmp_path, [RunSpec(cell=CellSpec(budget=1e11))])
    assert said in one_line(main, [str(tmp_path), *arguments.split()], capsys)


def test_bad_directories_are_one_line(finished, tmp_path, capsys) -> None:
    assert main([str(tmp_path / "absent")]) == 1
    assert "write it with python -m isoflop.plan" in capsys.readouterr().err
    directory = Path(shutil.copytree(finished, tmp_path / "sweep"))
    path = next((directory / "runs").glob("*/result.json"))
    path.write_text(json.dumps(seal(unseal(path.read_text(), since=3) | {"schema_version": 99})))
    assert "schema_version = 99" in one_line(main, [str(directory)], capsys)
    path.unlink()
    assert main([str(directory), "--loss", "99"]) == 1
    assert "no two minima of the arm enclose it" in capsys.readouterr().err


def test_ctrl_c_is_one_line(finished) -> None:
    command = [sys.executable, "-m", "isoflop.refine", str(finished)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while "pandas" not in maps.read_text():  # then the command is at work: it loads the analysis when it needs it
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert said == ("", "mdm_jax: interrupted\n")
    assert process.returncode in (130, -signal.SIGINT)  # a shell shows both as 130


def test_help_is_fast_and_loads_neither_jax_nor_the_analysis() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", "-m", "isoflop.refine", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not modules & {"jax", "flax", "pandas", "scipy", "analysis"}
    assert "--accept" in done.stdout
