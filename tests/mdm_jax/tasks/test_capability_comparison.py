"""The comparison of families: planted differences at equal loss and planted gaps of compute are found again."""

import csv
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest

from mdm_jax.files.storage import as_path
from mdm_jax.tasks.capability.draws import family_runs, fitted, log_odds
from mdm_jax.tasks.capability.equal_accuracy import accuracy_gaps, better_half
from mdm_jax.tasks.capability.equal_loss import differences
from mdm_jax.tasks.capability.measure import Measured
from mdm_jax.tasks.capability.questions import Answers, Task
from mdm_jax.tasks.capability.report import compared, model_lines
from mdm_jax.tasks.capability.table import read_table

RECORDED = Path(__file__).parents[3] / "experiments/results/capability"
CONDITIONS = ((Task.COPY, 4), (Task.COPY, 16), (Task.CONTINUATION, 16), (Task.FEW_SHOT, 0))
GROUPS = 40
GAP = 20.0
BUDGETS = {"arm": (1e10, 3e10, 1e11, 3e11, 1e12), "mdm": (2e11, 6e11, 2e12, 6e12, 2e13)}


def planted(above: float, seed: int = 0, groups: int = GROUPS, per_nat: float = 1.5) -> list[Measured]:
    """Runs whose log odds are a line in the loss, and `above` higher for an MDM.

    The loss falls by .25 nats for a factor of e in compute, and the MDM needs GAP times the ARM's compute.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for family, budgets in BUDGETS.items():
        for budget in budgets:
            for size in range(4):
                gap = GAP if family == "mdm" else 1.0
                loss = 4.0 - 0.25 * np.log(budget / gap / 1e10) + 0.02 * draw.normal()
                odds = per_nat * (3.0 - loss) + (above if family == "mdm" else 0.0)
                name = f"{family}-{budget:g}-{size}"
                run = {"budget": budget, "flops_6nd": budget * (1 + 1e-4 * size), "flops_exact": budget, "loss": loss}
                run["loss_left_to_right"] = loss + (0.1 if family == "mdm" else 0.0)
                for task, length in CONDITIONS:
                    p = 1 / (1 + np.exp(-odds)) if length else 0.25
                    right = draw.binomial(4, p, groups).astype(np.float64) if length else np.ones(groups)
                    answers = Answers(right, right)
                    rows.append(Measured(name, family, 1000, run, task, length, 0.25, "q", answers))
    return rows


def found(above: float, draws: int = 400, **changes):
    return {one.task: one for one in differences(family_runs(planted(above, **changes), "corrected", "nelbo", draws))}


@pytest.mark.parametrize("above", [0.0, 0.5, -0.8])
def test_a_planted_difference_at_equal_loss_is_found(above):
    less = found(above)
    assert list(less) == ["copy", "continuation", "all"]
    for one in less.values():
        low, high = one.interval
        assert low < above < high
        assert low < one.log_odds < high
        assert high - low < 0.5
        assert one.lines["arm"].coefficients[1] == pytest.approx(-1.5, abs=0.2)
    width = {task: one.interval[1] - one.interval[0] for task, one in less.items()}
    assert width["all"] < min(width["copy"], width["continuation"]), "three times the questions"


def test_intervals_have_their_level():
    """40 sweeps without a difference: the 95% intervals leave out 0 in about two of them."""
    missed = 0
    for seed in range(40):
        low, high = found(0.0, draws=200, seed=seed, groups=8)["all"].interval
        missed += not low < 0 < high
    assert missed <= 6


def test_the_middle_of_common_losses_decides():
    rows = planted(0.5)
    one = differences(family_runs(rows, "corrected", "nelbo", 100))[0]
    of_family = {
        family: [row.run["loss"] for row in rows if row.family == family and row.run["loss"]] for family in BUDGETS
    }
    low = max(min(losses) for losses in of_family.values())
    high = min(max(losses) for losses in of_family.values())
    assert (one.losses, one.loss) == ((low, high), (low + high) / 2)


def test_a_likelihood_moves_the_mdms_losses():
    """Left to right the MDM's losses are .1 nats higher, so at equal loss its log odds are .15 higher."""
    rows = planted(0.0)
    at = [differences(family_runs(rows, "corrected", likelihood, 50))[-1] for likelihood in ("nelbo", "left_to_right")]
    assert at[1].log_odds - at[0].log_odds == pytest.approx(0.15, abs=0.05)


def test_the_order_of_rows_does_not_matter():
    rows = planted(0.3)
    shuffled = sorted(rows, key=lambda row: random.Random(row.model).random())  # models move, and their rows stay
    one, other = (differences(family_runs(some, "corrected", "nelbo", 100))[-1] for some in (rows, shuffled))
    assert other.log_odds == pytest.approx(one.log_odds, rel=1e-9)


def test_planted_gaps_are_found():
    """The MDM's log odds are .375 higher at equal loss: worth a factor of e in compute, so 20 / e at equal accuracy."""
    for above, expected in ((0.0, GAP), (0.375, GAP / np.e)):
        gap = accuracy_gaps(family_runs(planted(above, groups=160), "corrected", "nelbo", 400))[-1]
        assert gap.reason == ""
        for (value, low, high), true in ((gap.at_accuracy, expected), (gap.at_loss, GAP), (gap.ratio, expected / GAP)):
            assert value == pytest.approx(true, rel=0.2)
            assert low < true < high


def test_a_gap_is_read_inside_the_compute_that_was_measured():
    """These MDMs have the losses and accuracies of ARMs from 1e11 to 1e12 FLOPs."""
    rows = [row for row in planted(0.0) if row.family == "arm" or (row.run["budget"] or 0) >= 2e12]
    gap = accuracy_gaps(family_runs(rows, "plain", "nelbo", 50))[-1]
    assert gap.arm_flops == pytest.approx(np.sqrt(1e11 * 1e12), rel=0.3)
    assert 2e12 < gap.arm_flops * gap.at_loss[0] < 2e13


def test_no_gap_is_read_from_an_accuracy_that_does_not_rise():
    gaps = accuracy_gaps(family_runs(planted(0.0, per_nat=0.0), "corrected", "nelbo", 300))
    assert {gap.reason for gap in gaps} == {"the accuracy of the ARM and MDM does not surely rise with compute"}


def test_the_better_half_of_a_budget():
    runs = family_runs(planted(0.0), "corrected", "nelbo", 10)["arm"]
    best = better_half(runs)
    for budget in BUDGETS["arm"]:
        here = runs.budget_R == budget
        assert best[here].sum() == 2
        assert runs.loss_R[here & best].max() < runs.loss_R[here & ~best].min()


def test_the_fit_is_the_weighted_least_squares_of_repeated_runs():
    draw = np.random.default_rng(0)
    x_R, y_R, times_R = draw.normal(size=9), draw.normal(size=9), draw.integers(0, 3, 9)
    for degree in (1, 2):
        expected = np.polynomial.polynomial.polyfit(x_R.repeat(times_R), y_R.repeat(times_R), degree)
        got = fitted(x_R, y_R[None], times_R[None].astype(float), degree)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_log_odds_of_none_and_all_are_finite():
    found = log_odds(np.array([0.0, 0.5, 1.0]), 10)
    np.testing.assert_allclose(found, [-np.log(21), 0.0, np.log(21)])


def test_the_report_has_each_task_once():
    report = compared(planted(0.4), "plain", "nelbo", 2)
    begins = [line.split(",")[:2] for line in report.csv.splitlines()]
    assert begins[:4] == [["task", "size"], ["copy", ""], ["continuation", ""], ["all", ""]]
    assert begins[4:] == [["copy", "4"], ["copy", "16"], ["continuation", "16"]]
    assert report.svg.startswith(b"<?xml")
    assert any(line.startswith("copy ") and "[" in line for line in report.lines)
    lines = model_lines(planted(0.4)[:2])
    assert lines[1].split()[:4] == ["arm-1e+10-0", "copy", "distance", "4"]


def _has_own_losses(row: Measured) -> bool:
    """Whether the run is one of the large ARMs and small MDMs, whose losses do not overlap."""
    budget = row.run["budget"] or 0
    return budget >= 3e11 if row.family == "arm" else budget <= 2e12


def test_the_recorded_comparison_is_that_of_the_recorded_table():
    rows = read_table(as_path(RECORDED / "table.csv"))
    less = {one.task: one for one in differences(family_runs(rows, "corrected", "nelbo"))}
    gaps = {one.task: one for one in accuracy_gaps(family_runs(rows, "corrected", "nelbo"))}
    with (RECORDED / "comparison.csv").open(newline="") as file:
        recorded = [row for row in csv.DictReader(file) if not row["size"]]
    assert [row["task"] for row in recorded] == list(less)
    for row in recorded:
        one, gap = less[row["task"]], gaps[row["task"]]
        numbers = [float(row[name]) for name in ("log_odds", "log_odds_low", "log_odds_high")]
        assert [one.log_odds, *one.interval] == pytest.approx(numbers, abs=1e-4)
        assert row["no_gap"] == gap.reason
        if not gap.reason:
            assert gap.at_accuracy[0] == pytest.approx(float(row["gap_at_accuracy"]), rel=1e-3)


REFUSED = [
    (lambda rows: [row for row in rows if row.family == "arm"], "MDM runs with a loss = 0: must be at least 1"),
    (lambda rows: [dataclasses.replace(rows[0], questions="other"), *rows[1:]], "sets of questions = 2: must be 1"),
    (lambda rows: [row for row in rows if _has_own_losses(row)], "none: "),
    (lambda rows: [row for row in rows if row.model.endswith("0") or row.family == "arm"], "MDM runs with losses from"),
    (lambda rows: [dataclasses.replace(row, run=dict.fromkeys(row.run)) for row in rows], "ARM runs with a loss = 0"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_cannot_be_compared_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        differences(family_runs(change(planted(0.0)), "corrected", "nelbo", 10))
