"""A guess of the best size at any budget, and the alarm about curves whose sizes all miss it on one side."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import fit_isoflop
from analysis.runs.load import read_runs
from isoflop.place.advice import advise
from isoflop.place.expand import expand, forecast_of
from isoflop.place.forecast import rough_optimum
from isoflop.place.prior import SMDM, TINY
from isoflop.sweep import CurveSpec, PlacementSpec, SweepSpec
from mdm_jax.spec import DataSpec, Family, ModelSpec, RunSpec, TokenizerKind, TokenizerSpec

ROOT = Path(__file__).parents[2]
RUN = RunSpec(
    model=ModelSpec(vocab_size=32000),
    data=DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000), seq_len=2048),
)


def test_tiny_prior_is_a_fit_of_the_sweeps_in_the_results() -> None:
    results = ROOT / "experiments/results"
    minima = [
        fit_isoflop(read_runs(results / name / "run_table.csv")).minima for name in ("cpu_overnight", "quickstart")
    ]
    for family, prior in TINY.families.items():
        overnight, both = (
            table[(table.family == family.value) & (table.status == "ok")] for table in (minima[0], pd.concat(minima))
        )
        for law, points, quantity in ((prior.n_opt, both, "n_opt"), (prior.loss, overnight, "loss_opt")):
            exponent, intercept = np.polyfit(np.log(points.budget), np.log(points[quantity]), 1)
            assert (law.coefficient, law.exponent) == pytest.approx((math.exp(intercept), exponent), rel=1e-3)
        assert (both.budget.min(), both.budget.max()) == prior.flops


@pytest.mark.parametrize("family", Family)
def test_the_rough_optimum_is_each_priors_own_near_its_points_and_grows_between(family: Family) -> None:
    forecast = forecast_of(RUN, SweepSpec())
    for prior in (TINY, SMDM):
        for budget in prior.families[family].flops:
            assert rough_optimum(forecast, family, budget) == pytest.approx(prior.families[family].n_opt(budget))
    rough = [rough_optimum(forecast, family, 10.0**power) for power in range(8, 24)]
    steps = np.diff(np.log10(rough))
    assert 0.4 < steps.min() < steps.max() < 0.8


def test_the_tiny_prior_places_a_sweep_for_cpus() -> None:
    whole = expand(RunSpec(), SweepSpec(placement=PlacementSpec(budgets=(1e11, 4e11, 1e12), prior="tiny")))
    said = advise(RunSpec(), whole)
    assert all(curve.expected and min(curve.below, curve.above) >= 2 for curve in said.curves)
    assert said.alarms == ()


@pytest.mark.parametrize("sizes", [("6", "19", "34", "48"), ("1x8", "1x12")])
def test_budgets_without_a_minimum_are_an_alarm_whose_sizes_have_one(sizes: tuple[str, ...]) -> None:
    curves = tuple(CurveSpec(family, budget, sizes) for family in Family for budget in (1e15, 3e15))
    said = advise(RUN, SweepSpec(curves=curves))
    (alarm,) = said.alarms
    larger = sizes[0] == "6"
    assert f"at 4 of 4 budgets every size is {'larger' if larger else 'smaller'} than the expected optimum" in alarm
    assert f"take {'smaller' if larger else 'larger'} sizes" in alarm
    suggested = tuple(re.findall(r"--sizes (\S+),", alarm)[0].split(","))
    mended = advise(RUN, SweepSpec(curves=tuple(dataclasses.replace(curve, sizes=suggested) for curve in curves)))
    assert mended.alarms == ()
    assert all(min(curve.below, curve.above) >= 2 for curve in mended.curves)


@pytest.mark.parametrize("budget", [1e3, 1e30])
def test_absurd_budgets_are_judged_without_an_error(budget: float) -> None:
    assert advise(RUN, SweepSpec(curves=(CurveSpec(Family.MDM, budget, ("34", "48")),))).alarms
