"""The final evaluation of pairs: the conditional loss of a response's token by enumeration, with honest errors."""

import dataclasses
import functools

import enumerated
import jax
import numpy as np
import pytest
from tiny_runs import on_mesh, run_spec, sharp_model

from mdm_jax.devices.sharding import place
from mdm_jax.evaluate import nelbo
from mdm_jax.evaluate.ratio import ratio
from mdm_jax.spec import CorpusSource, CorpusSpec, EvaluationSpec, Family, HardwareSpec, ModelSpec, OptimSpec, RunSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L, BATCH, ROWS = 3, 5, 8, 24
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)


def spec_of(family: Family, draws: int = 128, data: int = 1, model: int = 1, **changes) -> RunSpec:
    run = run_spec(
        family,
        TRUNK,
        L,
        optim=OptimSpec(global_batch=BATCH),
        evaluation=EvaluationSpec(eval_tokens=ROWS * L, mc_samples=draws, batch=BATCH),
        hardware=HardwareSpec(mesh_data=data, mesh_model=model),
    )
    corpus = CorpusSpec(CorpusSource.PAIRS, "pairs.jsonl")
    return dataclasses.replace(run, data=dataclasses.replace(run.data, corpus=corpus, **changes))


@functools.cache
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Prompts of 0 to 2 tokens and responses of 1 to 3 tokens."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(ROWS):
        prompt = rng.integers(0, V, rng.integers(0, 3)).astype(np.int32)
        found.append((prompt, rng.integers(0, V, rng.integers(1, 4)).astype(np.int32)))
    return found


def rows_SL() -> np.ndarray:
    rows = np.full((ROWS + 3, L), V, np.int32)  # the last three fill no batch
    rows[:, 0] = 0
    for row_L, (prompt, response) in zip(rows, pairs(), strict=False):
        row_L[0] = V
        row_L[: len(prompt)] = -1 - prompt
        row_L[len(prompt) : len(prompt) + len(response)] = response
    return rows


@functools.cache
def evaluate(spec: RunSpec) -> nelbo.Evaluation:
    hardware = spec.hardware
    with on_mesh(hardware.mesh_data, hardware.mesh_model):
        params = jax.jit(place)(sharp_model(spec.model, mesh_model=hardware.mesh_model))
        return nelbo.evaluate(params, spec, rows_SL(), jax.sharding.get_mesh())


@functools.cache
def expected(family: Family, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nats and scored tokens of each pair, by the chain rule, or by all orders of the scored tokens."""
    spec = spec_of(family).model
    with on_mesh():
        log_p, nats = enumerated.predictions_of(sharp_model(spec), spec), []
        for prompt, response in pairs():
            first, second = (prompt[:0], np.concatenate([prompt, response])) if whole else (prompt, response)
            if family is Family.MDM:
                nats.append(enumerated.any_order(log_p, first, second, V))
            else:
                row = np.concatenate([first, second])
                log_p_LV = log_p(np.concatenate([[V], row[:-1]])[None])[0]
                nats.append(-log_p_LV[np.arange(len(row)), row][len(first) :].sum())
    tokens = [len(response) + whole * len(prompt) for prompt, response in pairs()]
    return np.array(nats), np.array(tokens)


@pytest.mark.parametrize("whole", [False, True], ids=["responses", "whole"])
@pytest.mark.parametrize("family", list(Family))
def test_the_loss_is_the_nats_of_the_scored_tokens_by_their_number(family, whole):
    found, (nats_S, tokens_S) = evaluate(spec_of(family, score_prompt=whole)), expected(family, whole)
    exact = ratio(nats_S[None], tokens_S)
    assert found.tokens == tokens_S.sum()
    assert found.se_data == pytest.approx(exact.se_data, rel=1e-5 if family is Family.ARM else 0.15)
    if family is Family.ARM:
        assert (found.loss, found.se_mc) == (pytest.approx(exact.value, rel=1e-6), 0.0)
    else:
        assert abs(found.loss - exact.value) < 4 * found.se_mc
        assert 0 < found.se_mc < 0.03 * found.loss
    row_mean = float((nats_S / tokens_S).mean())
    assert abs(row_mean / exact.value - 1) > 1e-4  # the ARM's mean over rows would be seen to be another number


@pytest.mark.parametrize("family", list(Family))
def test_the_mesh_changes_nothing(family):
    one, other = evaluate(spec_of(family, 8)), evaluate(spec_of(family, 8, data=4, model=2))
    assert dataclasses.astuple(other) == pytest.approx(dataclasses.astuple(one), rel=1e-5)


def test_an_evaluation_goes_on_from_known_losses():
    spec, saved = spec_of(Family.MDM, 8), []
    with on_mesh():
        params, mesh = jax.jit(place)(sharp_model(spec.model)), jax.sharding.get_mesh()
        whole = nelbo.evaluate(params, spec, rows_SL(), mesh, finished=saved.append)
        assert nelbo.evaluate(params, spec, rows_SL(), mesh, known=saved[0][: 2 * BATCH].copy()) == whole
