"""A run with every setting of the training loss at once, from its spec to its result."""

import dataclasses

import pytest
from running import result

from mdm_jax import load
from mdm_jax.files.results import Status
from mdm_jax.spec import Family, LevelSampler, ObjectiveSpec, Variant


@pytest.mark.slow
def test_a_run_of_everything(shop):
    spec = shop.spec(Family.MDM)
    free = ObjectiveSpec(
        Variant.D3PM,
        LevelSampler.ANTITHETIC,
        time_steps=100,
        carry_over=False,
        zero_masking=False,
        stochastic_length=0.5,
    )
    model = dataclasses.replace(spec.model, mask_column=True, time_conditioning=True, dropout=0.1)
    spec = dataclasses.replace(spec, model=model, objective=free)
    runs = shop.undisturbed(spec)
    row = result(runs, spec)
    assert (row.status, row.objective_variant) == (Status.OK, spec.loss_label)
    assert row.objective_variant == "d3pm:T100,no_carry_over,no_zero_masking,short0.5,dropout0.1,timed"
    assert row.loss is not None
    assert 2 < row.loss < 6
    assert load(runs / spec.run_id).spec.time_conditioning
