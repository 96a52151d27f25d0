"""WSD trunks: which segments and branches a sweep becomes, what they save, and how a plan of them grows."""

import dataclasses
import itertools
import random
from collections.abc import Sequence

import pandas as pd
import pytest
from command_line import one_line

from analysis import check, read_runs
from analysis.checks.finding import Severity
from isoflop.cost import chain_costs, work_flops
from isoflop.grid import make_grid
from isoflop.ladder import SMDM
from isoflop.place.expand import expand
from isoflop.plan.__main__ import main
from isoflop.planfile import read_plan, write_plan
from isoflop.run.parents import check_parents
from isoflop.sweep import CurveSpec, PlacementSpec, SweepSpec
from isoflop.trunks import savings, with_trunks
from mdm_jax.files.results import TRUNK_SEGMENT, Status, result_of, write_result
from mdm_jax.spec import (
    CellSpec,
    DataSpec,
    Family,
    FlopConvention,
    HardwareSpec,
    ModelSpec,
    RunSpec,
    ScheduleKind,
    ScheduleSpec,
    TokenizerKind,
    TokenizerSpec,
)
from mdm_jax.spec.counting import count_parameters, train_flops

WSD = ScheduleSpec(kind=ScheduleKind.WSD)
PAPER = (6e18, 1e19, 3e19, 6e19, 1e20)
SIX_ND = FlopConvention.SMDM_6ND


def sweep(budgets: Sequence[float], sizes: Sequence[str] = ("1x16", "2x20"), **settings) -> SweepSpec:
    curves = tuple(CurveSpec(family, budget, tuple(sizes)) for family in Family for budget in budgets)
    return SweepSpec(**{"curves": curves, "recipe": "tiny_trunk"} | settings)


def plan(budgets: Sequence[float], anchor: float = 0.0, **settings) -> tuple[RunSpec, ...]:
    return with_trunks(make_grid(RunSpec(schedule=WSD), sweep(budgets, **settings), HardwareSpec()), 0.2, anchor)


def cells(runs: Sequence[RunSpec]) -> list[RunSpec]:
    return [run for run in runs if not run.cell.segment]


def run_of(steps: int, warmup: int = 0, **cell) -> RunSpec:
    schedule = dataclasses.replace(WSD, steps=steps, warmup_steps=warmup)
    return RunSpec(schedule=schedule, cell=CellSpec(budget=float(steps), size="2x64", **cell))


def alone(run: RunSpec) -> RunSpec:
    return dataclasses.replace(run, cell=dataclasses.replace(run.cell, parent_run_id="", parent_steps=0))


def trunk_of(runs: Sequence[RunSpec]) -> list[RunSpec]:
    return sorted((run for run in runs if run.cell.segment), key=lambda run: run.schedule.steps)


def test_each_branch_begins_where_its_segment_ends() -> None:
    runs = plan([1e10, 3e10, 1e11])
    by_id = {run.run_id: run for run in runs}
    assert len(runs) == len(by_id) == 24
    for branch in cells(runs):
        parent = by_id[branch.cell.parent_run_id]
        assert parent.cell.segment
        assert parent.cell.budget is None
        assert parent.schedule.cooldown_steps == 0
        assert parent.schedule.steps == branch.cell.parent_steps
        assert parent.schedule.steps == branch.schedule.steps - round(0.2 * branch.schedule.steps)
    for family, d_model in itertools.product(Family, (16, 20)):
        trunk = trunk_of([run for run in runs if run.family is family and run.model.d_model == d_model])
        assert [run.cell.parent_run_id for run in trunk] == ["", *(run.run_id for run in trunk[:-1])]
    assert check_parents(runs) is runs


def test_a_branch_is_the_run_that_is_trained_alone() -> None:
    grid = make_grid(RunSpec(schedule=WSD), sweep([1e10, 3e10]), HardwareSpec())
    for cell, branch in zip(grid, cells(with_trunks(grid, 0.25)), strict=True):
        assert (cell.cell.budget, cell.cell.size, cell.family) == (
            branch.cell.budget, branch.cell.size, branch.family
        )  # fmt: skip
        assert cell.schedule.steps == branch.schedule.steps
        assert branch.schedule.cooldown_steps == round(0.25 * branch.schedule.steps)
        assert alone(branch).run_id == branch.run_id
        assert alone(branch) == dataclasses.replace(cell, schedule=branch.schedule)


def test_a_trunk_warms_up_as_its_smallest_budget_would() -> None:
    runs = plan([3e11, 1e10], sizes=["1x16"])
    for family in Family:
        own = [run for run in runs if run.family is family]
        smallest = min(cells(own), key=lambda run: run.schedule.steps)
        assert smallest.schedule.warmup_steps == smallest.schedule.steps // 10
        assert {run.schedule.warmup_steps for run in own} == {smallest.schedule.warmup_steps}


def test_the_papers_plan_costs_at_most_65_percent_of_the_cosine_plans_flops() -> None:
    template = RunSpec(
        model=ModelSpec(vocab_size=32000),
        data=DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000), seq_len=2048),
    )
    rule = PlacementSpec(budgets=PAPER, sizes=tuple(SMDM), sizes_per_curve=0)
    asked = SweepSpec(placement=rule, recipe="smdm_code")
    cosine = make_grid(template, expand(template, asked), HardwareSpec())
    wsd = dataclasses.replace(template, schedule=WSD)
    runs = with_trunks(make_grid(wsd, expand(wsd, asked), HardwareSpec()), 0.2)
    assert [(run.family, run.cell.size, run.train_tokens) for run in cosine] == [
        (run.family, run.cell.size, run.train_tokens) for run in cells(runs)
    ]
    saved = savings(runs)
    assert saved.alone == sum(train_flops(run, SIX_ND) for run in cosine)
    assert len(cosine) > 150
    assert saved.share == pytest.approx(0.629, abs=0.001)


def test_the_quoted_law_of_the_optimum_gives_the_same_figure() -> None:
    """N* = 1.029e-4 C^.634, as third parties quote SMDM's: every size of the ladder within a factor 4 of it."""
    params = {name: count_parameters(size.model(ModelSpec())).non_embedding for name, size in SMDM.items()}
    curves = []
    for budget in PAPER:
        n_opt = 1.029e-4 * budget**0.634
        near = tuple(name for name, n in params.items() if n_opt / 4 <= n <= n_opt * 4)
        curves.append(CurveSpec(Family.MDM, budget, near))
    template = RunSpec(schedule=WSD, data=DataSpec(seq_len=2048))
    grid = make_grid(template, SweepSpec(curves=tuple(curves), recipe="smdm_code"), HardwareSpec())
    assert savings(with_trunks(grid, 0.2)).share == pytest.approx(0.641, abs=0.001)


def test_what_is_trained_is_the_longest_trunk_and_every_cooldown() -> None:
    draw = random.Random(0)
    for _ in range(20):
        fraction = draw.choice([0.0, 0.1, 0.2, 0.5, 0.9])
        steps = draw.sample(range(1, 400), draw.randint(1, 6))
        runs = with_trunks([run_of(n) for n in steps], fraction)
        check_parents(runs)
        cooldowns = [round(fraction * n) for n in steps]
        starts = [n - down for n, down in zip(steps, cooldowns, strict=True)]
        one = train_flops(run_of(1), SIX_ND)
        saved = savings(runs)
        assert (saved.trained, saved.alone) == (one * (max(starts) + sum(cooldowns)), one * sum(steps))
        assert sorted(run.schedule.steps for run in cells(runs)) == sorted(steps)
        longest = chain_costs(runs, work_flops)
        assert max(longest.values()) == longest[min(runs, key=lambda run: run.schedule.steps).run_id]


def test_branches_that_begin_at_one_step_share_their_segment() -> None:
    runs = with_trunks([run_of(2), run_of(3)], 0.5)
    assert [(run.schedule.steps, run.cell.parent_steps) for run in runs] == [(1, 0), (2, 1), (3, 1)]
    assert runs[1].cell.parent_run_id == runs[2].cell.parent_run_id == runs[0].run_id


def test_without_cooldown_the_runs_themselves_are_the_trunk() -> None:
    runs = with_trunks([run_of(30), run_of(10), run_of(20)], 0.0)
    assert [(run.schedule.steps, run.cell.parent_steps) for run in runs] == [(30, 20), (10, 0), (20, 10)]
    assert not any(run.cell.segment for run in runs)
    assert savings(runs).trained == train_flops(run_of(30), SIX_ND)
    assert result_of(runs[0], Status.OK).lr_final_fraction == 1.0  # so that the analysis sees it undecayed


def test_a_segment_is_in_the_table_and_in_no_fit() -> None:
    segment, branch = with_trunks([run_of(10)], 0.2)
    assert result_of(segment, Status.OK).excluded_reason == TRUNK_SEGMENT
    assert result_of(segment, Status.DIVERGED, excluded_reason="diverged").excluded_reason == "diverged"
    row = result_of(branch, Status.OK)
    assert (row.excluded_reason, row.parent_run_id) == ("", segment.run_id)
    assert (row.steps, row.tokens) == (10, branch.train_tokens)
    assert row.lr_final_fraction == 0.1
    rows = [dataclasses.asdict(result_of(run, Status.OK, loss=2.5)) for run in (segment, branch)]
    table = read_runs(pd.DataFrame(rows))
    assert list(table["excluded_reason"]) == [TRUNK_SEGMENT, ""]
    (found,) = (finding for finding in check(table) if "left out" in finding.message)
    assert (found.severity, found.number) == (Severity.NOTE, 1.0)


def test_several_learning_rates_are_several_trunks() -> None:
    runs = plan([1e10, 3e10], sizes=["1x16"], lr_multipliers=(0.5, 1.0), seeds=(0, 1))
    assert len(runs) == 2 * 2 * 2 * 4
    first = [run for run in trunk_of(runs) if not run.cell.parent_run_id]
    assert len({(run.family, run.optim.lr_peak, run.seed) for run in first}) == len(first) == 8


def test_groups_have_trunks_of_their_own_and_equal_segments_once() -> None:
    apart = [run_of(100, group="a"), run_of(200, group="b", convention=FlopConvention.EXACT)]
    assert len(with_trunks(apart, 0.2)) == 4
    assert len(with_trunks([run_of(2, group="a"), run_of(3, group="b")], 0.5)) == 3
    same = [run_of(200, 2, group="a"), run_of(200, 3, group="b"), run_of(100, 3, group="a")]
    with pytest.raises(ValueError, match="are the same run"):
        with_trunks(same, 0.2)


def test_a_recipe_that_looks_at_the_budget_is_refused() -> None:
    for batch, fix in ((0, r" and set sweep.global_batch$"), (8, "tiny_trunk$")):
        with pytest.raises(ValueError, match=fix) as refused:
            plan([1e10, 3e11], sizes=["1x32"], recipe="tiny", global_batch=batch)
        assert str(refused.value).startswith("mdm 1x32 at 1e+10 FLOPs has learning rate 0.0025 and batch ")
        assert ": take a sweep.recipe whose learning rate does not depend on the budget" in str(refused.value)
    with pytest.raises(ValueError, match=r"share both: set sweep.global_batch$"):
        plan([1e10, 3e11], sizes=["1x16"], recipe="tiny")  # whose learning rate is at its bound


def test_a_cooldown_that_begins_in_the_warm_up_is_refused() -> None:
    with_trunks([run_of(100, 80)], 0.2)
    with pytest.raises(ValueError, match="a warm-up of 81 steps and a cooldown of 20 do not fit into 100 steps"):
        with_trunks([run_of(100, 81)], 0.2)


def added(old: Sequence[RunSpec], new: Sequence[RunSpec]) -> list[RunSpec]:
    assert {run.run_id for run in old} <= {run.run_id for run in new}
    return [run for run in new if run.run_id not in {o.run_id for o in old}]


def test_a_larger_budget_adds_one_segment_and_one_branch() -> None:
    old, new = plan([1e10, 3e10], sizes=["1x16"]), plan([1e10, 3e10, 1e11], sizes=["1x16"])
    for family in Family:
        more = [run for run in added(old, new) if run.family is family]
        assert [run.cell.segment for run in more] == [True, False]
        last = trunk_of([run for run in old if run.family is family])[-1]
        assert [run.cell.parent_run_id for run in more] == [last.run_id, more[0].run_id]
    assert {run.run_id: run for run in new}.items() >= {run.run_id: run for run in old}.items()


def test_a_budget_in_between_starts_from_the_nearest_lower_segment(tmp_path) -> None:
    old, new = plan([1e10, 1e11], sizes=["1x16"]), plan([1e10, 3e10, 1e11], sizes=["1x16"])
    for family in Family:
        segment, branch = (run for run in added(old, new) if run.family is family)
        lowest = trunk_of([run for run in old if run.family is family])[0]
        assert segment.cell.parent_run_id == lowest.run_id
        assert branch.cell.parent_run_id == segment.run_id
    write_plan(tmp_path, old)
    (tmp_path / "runs" / old[0].run_id).mkdir(parents=True)
    written = write_plan(tmp_path, new)
    assert written.runs[: len(old)] == old  # a run that may have started keeps its parent
    assert check_parents(read_plan(tmp_path))


def test_a_budget_below_the_others_would_change_their_warm_up(tmp_path) -> None:
    old = plan([3e10, 1e11], sizes=["1x16"])
    write_plan(tmp_path, old)
    write_plan(tmp_path, plan([1e10, 1e11], sizes=["1x16"]))  # nothing has run
    write_plan(tmp_path, old)
    write_result(tmp_path / "runs" / old[0].run_id / "result.json", result_of(old[0], Status.RUNNING))
    with pytest.raises(ValueError, match="is not in the new one") as refused:
        write_plan(tmp_path, plan([1e10, 3e10, 1e11], sizes=["1x16"]))
    assert "set sweep.trunk_warmup_budget=3e+10 to keep it" in str(refused.value)
    pinned = plan([1e10, 3e10, 1e11], anchor=3e10, sizes=["1x16"])
    for family in Family:
        segment, branch = (run for run in added(old, pinned) if run.family is family)
        assert segment.cell.parent_run_id == ""
        assert branch.cell.parent_run_id == segment.run_id
    assert write_plan(tmp_path, pinned).added == 4
    assert check_parents(read_plan(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parent_run_id": "mdm-9x99-0", "parent_steps": 3}, "its parent mdm-9x99-0 is not in the plan"),
        ({"parent_steps": 3}, "cell.parent_steps = 3: must be 80, the parent's steps"),
        ({"parent_run_id": "itself"}, "schedule.cooldown_steps = 20: must be 0"),
    ],
)
def test_a_strangers_parents_are_checked(change: dict, said: str) -> None:
    segment, branch = with_trunks([run_of(100)], 0.2)
    change = {name: branch.run_id if value == "itself" else value for name, value in change.items()}
    edited = dataclasses.replace(branch, cell=dataclasses.replace(branch.cell, **change))
    with pytest.raises(ValueError, match=branch.run_id) as refused:
        check_parents([segment, edited])
    assert said in str(refused.value)


def test_a_cycle_is_refused() -> None:
    one, other = run_of(100), run_of(200)
    there = dataclasses.replace(one.cell, parent_run_id=other.run_id, parent_steps=200)
    back = dataclasses.replace(other.cell, parent_run_id=one.run_id, parent_steps=100)
    with pytest.raises(ValueError, match=r"schedule.steps = 200: must be at most 99, before the cooldown begins"):
        check_parents([dataclasses.replace(one, cell=there), dataclasses.replace(other, cell=back)])


def test_another_run_is_no_parent() -> None:
    segment, branch = with_trunks([run_of(100, 5)], 0.2)
    optim = dataclasses.replace(segment.optim, lr_peak=0.5)
    longer = dataclasses.replace(segment.schedule, steps=90)
    warmer = dataclasses.replace(segment.schedule, warmup_steps=6)
    for changed, said in (
        (dataclasses.replace(segment, optim=optim), "another run"),
        (dataclasses.replace(segment, schedule=longer), "must be at most 80"),
        (dataclasses.replace(segment, schedule=warmer), "warmup_steps = 6: must be 5"),
    ):
        cell = dataclasses.replace(branch.cell, parent_run_id=changed.run_id, parent_steps=changed.schedule.steps)
        with pytest.raises(ValueError, match=said):
            check_parents([changed, dataclasses.replace(branch, cell=cell)])


def test_the_plan_prints_what_it_saves(tmp_path, capsys) -> None:
    flags = ["--budgets", "1e10,3e10", "--sizes", "1x16", "--families", "arm", "--seq-len", "64", "--vocab-size", "257"]
    wsd = ["run.schedule.kind=wsd", "sweep.cooldown_fraction=0.25"]
    assert main([*flags, "--recipe", "tiny_trunk", "--cells", "--out", str(tmp_path), "--set", *wsd]) == 0
    out = capsys.readouterr().out
    runs = read_plan(tmp_path)
    assert f"WSD trunks: {savings(runs).trained:.3g} FLOPs (smdm_6nd) in place of 4" in out
    assert "(81%)" in out  # (.75 x 3e10 + .25 x 4e10) of 4e10
    totals = next(line.split() for line in out.splitlines() if line.startswith("arm") and " all " in line)
    assert f"{savings(runs).trained:.3e}" in totals
    assert {round(run.schedule.cooldown_steps / run.schedule.steps, 2) for run in cells(runs)} == {0.25}
    text = (tmp_path / "plan.jsonl").read_text()
    assert main([*flags, "--recipe", "tiny_trunk", "--out", str(tmp_path), "--set", *wsd]) == 0
    assert (tmp_path / "plan.jsonl").read_text() == text
    capsys.readouterr()
    for setting, said in (
        ("sweep.cooldown_fraction=1", "sweep.cooldown_fraction = 1.0: must be at least 0 and below 1"),
        ("run.schedule.cooldown_steps=5", "run.schedule.cooldown_steps = 5: must be left out"),
    ):
        arguments = [*flags, "--recipe", "tiny_trunk", "--out", str(tmp_path), "--set", *wsd[:1], setting]
        assert said in one_line(main, arguments, capsys)
