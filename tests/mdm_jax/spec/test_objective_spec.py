"""Names and hashes of training losses, and the planner's runs with a loss that needs another head."""

import dataclasses

import pytest

from isoflop.grid import make_cell
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.files.results import contradictions, implied_by
from mdm_jax.spec import (
    Cutoff,
    Family,
    LevelSampler,
    ModelSpec,
    NoiseSchedule,
    ObjectiveSpec,
    RunSpec,
    Variant,
    Weighting,
)
from mdm_jax.spec.validation import to_dict

COSINE = ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.IID, NoiseSchedule.COSINE)
FREE = ObjectiveSpec(Variant.D3PM, LevelSampler.STRATIFIED, time_steps=50, carry_over=False, zero_masking=False)
LABELS = {
    "count": ObjectiveSpec(),
    "nll": ObjectiveSpec(Variant.NLL),
    "count/optimal": ObjectiveSpec(levels=LevelSampler.OPTIMAL),
    "count:short0.01": ObjectiveSpec(stochastic_length=0.01),
    "continuous/iid/cosine": COSINE,
    "continuous/polynomial3": ObjectiveSpec(Variant.CONTINUOUS, noise=NoiseSchedule.POLYNOMIAL, noise_power=3.0),
    "continuous/iid:geometric": dataclasses.replace(COSINE, noise=NoiseSchedule.GEOMETRIC),
    "continuous/iid/cosine:bell,cutoff_mdlm0.001": dataclasses.replace(
        COSINE, weighting=Weighting.BELL, cutoff=Cutoff.MDLM
    ),
    "steps:T8": ObjectiveSpec(Variant.STEPS, time_steps=8),
    "d3pm/stratified:T50,no_carry_over,no_zero_masking": FREE,
}


@pytest.mark.parametrize("label", LABELS)
def test_labels(label: str) -> None:
    assert LABELS[label].label == label


def test_every_setting_has_its_own_label() -> None:
    assert len({objective.label for objective in LABELS.values()}) == len(LABELS)


def test_the_hash_of_an_older_loss_is_the_older_hash() -> None:
    old = {"variant", "levels", "noise"}
    for objective in (ObjectiveSpec(), ObjectiveSpec(Variant.NLL), COSINE):
        assert set(to_dict(objective, hashed_only=True)) == old
    assert set(to_dict(FREE, hashed_only=True)) == old | {"time_steps", "carry_over", "zero_masking"}


def test_rows_of_older_tables_have_the_older_name() -> None:
    spec = RunSpec(objective=COSINE)
    assert contradictions(implied_by(spec), spec) == ()
    assert contradictions(implied_by(spec) | {"objective_variant": "continuous"}, spec) == ()
    assert contradictions(implied_by(spec) | {"objective_variant": "count"}, spec) == ("objective_variant",)


def test_a_curve_without_zero_masking_has_the_column_for_it() -> None:
    curve = CurveSpec(Family.MDM, 1e10, ("1x8",), objective=FREE)
    free = make_cell(RunSpec(), SweepSpec(), curve, "1x8")
    plain = make_cell(RunSpec(), SweepSpec(), dataclasses.replace(curve, objective=None), "1x8")
    assert (free.model.mask_column, plain.model.mask_column) == (True, False)
    back = make_cell(
        RunSpec(ModelSpec(mask_column=True), FREE), SweepSpec(), CurveSpec(Family.ARM, 1e10, ("1x8",)), "1x8"
    )
    assert not back.model.mask_column
