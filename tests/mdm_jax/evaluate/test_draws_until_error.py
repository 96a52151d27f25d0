"""An evaluation with `max_se` ends when its Monte Carlo error is small enough, and its error stays honest."""

import dataclasses
import functools
import math

import enumerated
import jax
import numpy as np
import pytest
from tiny_runs import on_mesh, run_spec, sharp_model, tokens

from mdm_jax.devices.sharding import make_mesh, place
from mdm_jax.evaluate import nelbo
from mdm_jax.files.results import Status, contradictions, implied_by, result_of
from mdm_jax.spec import Estimator, EvaluationSpec, Family, ModelSpec, RunSpec, from_json, to_json

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L, ROWS, BATCH, MOST = 3, 4, 64, 64, 320
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)
MAX_SE = 0.007
FIXED = EvaluationSpec(ROWS * L, MOST, BATCH, estimator=Estimator.CONTROL_VARIATE)
UNTIL = dataclasses.replace(FIXED, max_se=MAX_SE)
placed = jax.jit(place)


def spec_of(evaluation: EvaluationSpec = UNTIL, family: Family = Family.MDM) -> RunSpec:
    return run_spec(family, TRUNK, L, evaluation=evaluation)


@functools.cache
def rows() -> np.ndarray:
    return tokens((2 * ROWS, L), V, seed=3)[:ROWS]


def evaluated(spec: RunSpec, factor: float = 1.0, **arguments) -> nelbo.Evaluation:
    """The evaluation of a model whose weights are multiplied by this factor."""
    mesh = make_mesh(1, 1, jax.devices()[:1])
    with jax.set_mesh(mesh):
        params = jax.tree.map(lambda x: factor * x, placed(sharp_model(spec.model)))
        return nelbo.evaluate(params, spec, rows(), mesh, **arguments)


@functools.cache
def exact_loss() -> float:
    """The mean NELBO of the rows, summed over all masks."""
    with on_mesh():
        log_p = enumerated.predictions_of(sharp_model(TRUNK), spec_of().model)
        return float(enumerated.nats_by_count(log_p, rows(), V).mean())


def test_the_draws_end_when_the_error_is_small_enough() -> None:
    """The draws so far are the first draws of an evaluation with a fixed number of them."""
    found = evaluated(spec_of())
    assert 32 < found.mc_samples < MOST
    assert found.mc_samples % 16 == 0
    assert 0 < found.se_mc <= MAX_SE
    fixed = evaluated(spec_of(dataclasses.replace(FIXED, mc_samples=found.mc_samples)))
    assert dataclasses.astuple(fixed) == pytest.approx(dataclasses.astuple(found), rel=1e-6)


def test_two_groups_can_be_enough() -> None:
    assert evaluated(spec_of(dataclasses.replace(UNTIL, max_se=1.0))).mc_samples == 32


def test_mc_samples_is_the_most() -> None:
    few = dataclasses.replace(UNTIL, max_se=1e-9, mc_samples=48)
    found, fixed = evaluated(spec_of(few)), evaluated(spec_of(dataclasses.replace(few, max_se=0.0)))
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(fixed), rel=1e-6)
    assert found.mc_samples == 48


def test_a_loss_that_is_not_finite_ends_the_draws() -> None:
    found = evaluated(spec_of(), factor=math.nan)
    assert (found.mc_samples, math.isnan(found.loss)) == (32, True)


def test_the_error_is_honest(monkeypatch) -> None:
    """Forty repetitions know the actual error to 11%."""
    found = []
    for seed in range(40):
        monkeypatch.setattr(nelbo, "DRAW_SEED", seed)
        found.append(evaluated(spec_of()))
    error_N, reported_N = (np.array([getattr(one, name) for one in found]) for name in ("loss", "se_mc"))
    error_N -= exact_loss()
    assert len({one.mc_samples for one in found}) > 1  # the draws decide their number
    assert abs(error_N.mean()) < 4 * reported_N.mean() / 40**0.5
    assert 0.7 < reported_N.mean() / error_N.std(ddof=1) < 1.4


def test_an_interrupted_evaluation_goes_on_with_the_same_bits(monkeypatch) -> None:
    monkeypatch.setattr(nelbo, "DISPATCH_FLOPS", 1)  # a batch at a time
    whole: list[np.ndarray] = []
    expected = evaluated(spec_of(), finished=whole.append)
    assert len(whole) == ROWS * expected.mc_samples // BATCH
    at_first_look = ROWS * 32 // BATCH
    for done in (1, at_first_look, at_first_look + 1, len(whole)):
        resumed: list[np.ndarray] = []
        assert evaluated(spec_of(), known=whole[done - 1].copy(), finished=resumed.append) == expected
        assert len(resumed) == len(whole) - done


def test_the_arm_ignores_it() -> None:
    spec = spec_of(family=Family.ARM)
    found = evaluated(spec)
    assert (found.mc_samples, found.se_mc, spec.draws_until_error, spec.most_draws) == (1, 0, False, 1)
    assert implied_by(spec)["mc_samples"] == 1


def test_the_row_has_the_draws_that_were_made() -> None:
    spec = spec_of()
    assert result_of(spec, Status.RUNNING).mc_samples == MOST
    row = dataclasses.asdict(result_of(spec, Status.OK, mc_samples=48))
    assert (row["mc_samples"], contradictions(row, spec)) == (48, ())
    assert dataclasses.replace(result_of(spec, Status.OK, mc_samples=48), **implied_by(spec)).mc_samples == 48
    assert contradictions(row, spec_of(FIXED)) != ()


def test_it_is_part_of_the_run_id_only_if_set() -> None:
    assert spec_of().run_id != spec_of(FIXED).run_id
    assert spec_of(dataclasses.replace(UNTIL, max_se=0.0)).run_id == spec_of(FIXED).run_id
    assert from_json(to_json(spec_of())) == spec_of()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_se": -0.1}, r"max_se = -0\.1: must be 0, or an error"),
        ({"max_se": float("inf")}, r"max_se = inf: must be 0, or an error"),
        ({"estimator": Estimator.COUNTS}, r"max_se = 0\.007: must be 0 \(the default\) unless .*control_variate"),
        ({"mc_samples": 32}, r"mc_samples = 32: must be at least 48 with evaluation\.max_se"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(UNTIL, **change)
