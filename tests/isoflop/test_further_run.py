"""Further runs of a sweep are the ones that its planner would have made, on the ladder that it stands on."""

import dataclasses
from collections.abc import Sequence

import pytest

from isoflop.grid import make_grid
from isoflop.ladder import SMDM, tiny_sizes
from isoflop.recipe import RECIPES
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.rungs import rungs, size_of
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.spec import Family, HardwareSpec, RunSpec, ScheduleKind, ScheduleSpec
from mdm_jax.spec.counting import train_flops


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("options", [{}, {"global_batch": 8}, {"lr_multipliers": (0.5, 1.0, 2.0)}])
def test_further_run_is_the_one_that_the_planner_would_have_made(recipe: str, options: dict) -> None:
    curves = tuple(
        CurveSpec(family, budget, ("6", "19", "34", "48")) for family in Family for budget in (6e15, 1e16, 3e16)
    )
    plan = make_grid(RunSpec(), SweepSpec(curves=curves, recipe=recipe, **options), HardwareSpec())
    for left_out in (plan[1], plan[-2]):
        rest = [run for run in plan if run.run_id != left_out.run_id]
        several = "lr_multipliers" in options  # then the runs of the same multiple of the recipe's rate have results
        usable = [run for run in rest if not several or _multiple(run, plan) == _multiple(left_out, plan)]
        further = FurtherRuns(rest, usable)
        made = further.make(left_out.family, left_out.cell.budget or 0.0, size_of(left_out), left_out.seed)
        assert made is not None
        assert made.run_id == left_out.run_id


def _multiple(run: RunSpec, plan: Sequence[RunSpec]) -> float:
    """The run's learning rate over the middle one of its cell."""
    cell = (run.family, run.cell.budget, run.model)
    rates = sorted(r.optim.lr_peak for r in plan if (r.family, r.cell.budget, r.model) == cell)
    return run.optim.lr_peak / rates[1]


@pytest.mark.parametrize("recipe", ["", "of_a_newer_version"])
def test_unknown_recipe_is_copied_from_the_nearest_run(recipe: str) -> None:
    curves = tuple(CurveSpec(Family.MDM, 1e12, (name,)) for name in ("2x32", "2x48", "2x64"))
    plan = make_grid(RunSpec(), SweepSpec(curves=curves), HardwareSpec())
    odd = [
        dataclasses.replace(
            run,
            optim=dataclasses.replace(run.optim, lr_peak=1e-3 * (i + 1), global_batch=4),
            cell=dataclasses.replace(run.cell, recipe=recipe),
        )
        for i, run in enumerate(plan)
    ]
    made = FurtherRuns(odd, odd).make(Family.MDM, 1e12, next(s for s in tiny_sizes() if s.name == "2x40"))
    assert made is not None
    assert made.optim.lr_peak in (1e-3, 2e-3)
    assert made.optim.global_batch == 4
    assert 0.99e12 <= train_flops(made, made.cell.convention) <= 1e12


def test_wsd_run_keeps_the_share_of_its_cooldown() -> None:
    template = RunSpec(schedule=ScheduleSpec(kind=ScheduleKind.WSD))
    curves = (CurveSpec(Family.MDM, 1e12, ("2x32", "2x64")),)
    plan = [
        dataclasses.replace(r, schedule=dataclasses.replace(r.schedule, cooldown_steps=r.schedule.steps // 5))
        for r in make_grid(template, SweepSpec(curves=curves), HardwareSpec())
    ]
    made = FurtherRuns(plan, plan).make(Family.MDM, 1e12, next(s for s in tiny_sizes() if s.name == "2x48"))
    assert made is not None
    assert made.schedule.cooldown_steps / made.schedule.steps == pytest.approx(0.2, abs=0.01)
    assert made.cell.parent_run_id == ""


def test_ladder_is_continued() -> None:
    def names(sizes: tuple[str, ...]) -> list[str]:
        curves = (CurveSpec(Family.MDM, 1e19 if sizes[0] in SMDM else 1e12, sizes),)
        recipe = "smdm_code" if sizes[0] in SMDM else "tiny"
        return list(rungs(make_grid(RunSpec(), SweepSpec(curves=curves, recipe=recipe), HardwareSpec())))

    smdm = names(("113", "170"))
    assert set(SMDM) <= set(smdm)
    assert all("x" in name for name in smdm[: smdm.index("6")])
    assert not any("x" in name for name in smdm[smdm.index("6") : smdm.index("2121")])
    tiny = names(("1x16", "1x24", "2x20"))
    assert tiny.index("1x12") < tiny.index("1x16") < tiny.index("1x24") < tiny.index("2x40")
