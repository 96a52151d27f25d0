"""A bfloat16 run on a CPU: resumed, it has the bits of a run that never stopped, and its loss is near float32's."""

import dataclasses

import pytest
from running import assert_same, killed_at, outcome, result

from mdm_jax.spec import ComputeDtype, Family

RELATIVE_ERROR = 2e-3
"""Tolerance of the final loss after 12 steps; measured 4e-4 for the MDM and 2e-4 for the ARM."""


@pytest.mark.slow
@pytest.mark.parametrize("family", Family)
def test_a_resumed_run_is_the_one_that_never_stopped(shop, tmp_path, family) -> None:
    exact = shop.spec(family)
    spec = dataclasses.replace(exact, model=dataclasses.replace(exact.model, compute_dtype=ComputeDtype.BFLOAT16))
    whole = shop.undisturbed(spec)
    killed_at(whole, tmp_path, spec, 10)
    end = shop.run(spec, tmp_path)
    assert end.code == 0, end.said
    assert "resumed at step 10" in end.said
    assert_same(outcome(tmp_path, spec), outcome(whole, spec))
    reference = result(shop.undisturbed(exact), exact).loss
    assert result(whole, spec).loss == pytest.approx(reference, rel=RELATIVE_ERROR)
    assert result(whole, spec).loss != pytest.approx(reference, rel=1e-6)
