"""The losses of pairs against brute force: every mask of a short response is summed, on rows without padding."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import all_rows, any_order, predictions_of
from scipy import stats
from tiny_runs import on_mesh, put, run_spec, sharp_model

from mdm_jax.devices.sharding import place
from mdm_jax.model.transformer import hidden
from mdm_jax.objectives import loss as objectives
from mdm_jax.objectives.pairs import pair_counts
from mdm_jax.spec import (
    Attention,
    CorpusSource,
    CorpusSpec,
    HardwareSpec,
    LevelSampler,
    ModelSpec,
    ObjectiveSpec,
    OptimSpec,
    RowKind,
    RunSpec,
    Variant,
)
from mdm_jax.train.step import loss_and_grads

pytestmark = pytest.mark.usefixtures("one_device")
V, L, DRAWS = 3, 5, 1500
PAIRS = [([2], [0, 1, 2]), ([], [1, 2]), ([0, 1, 1], [2]), ([1, 0], [2, 0, 1])]
"""Prompt and response; the last one fills its row, the third is one token, the second has no prompt."""
NLL = ObjectiveSpec(Variant.NLL)
FORMS = [
    ObjectiveSpec(),
    ObjectiveSpec(levels=LevelSampler.OPTIMAL),
    ObjectiveSpec(levels=LevelSampler.SHIFTED),
    ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.STRATIFIED),
    ObjectiveSpec(drop_prompt=0.5),
]


def name(objective: ObjectiveSpec) -> str:
    return f"{objective.label}-{objective.levels}"


def row_of(prompt: list[int], response: list[int]) -> np.ndarray:
    """A row of a batch of pairs."""
    row_L = np.full(L, V, np.int32)
    row_L[: len(prompt)] = -1 - np.array(prompt, np.int32)
    row_L[len(prompt) : len(prompt) + len(response)] = response
    return row_L


ROWS = np.array([row_of(*pair) for pair in PAIRS], np.int32)


def trunk(attention: Attention) -> ModelSpec:
    return ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V, attention=attention)


MDM, ARM = trunk(Attention.BIDIRECTIONAL), trunk(Attention.CAUSAL)


@functools.cache
def table(attention: Attention, length: int) -> np.ndarray:
    """Log-probabilities of every row of this length over 0..V, `[(V+1)^length, length, V]`; no row has padding."""
    spec = trunk(attention)
    return predictions_of(sharp_model(spec), spec)(all_rows(V + 1, length))


def looked_up(attention: Attention, rows_SL: np.ndarray) -> np.ndarray:
    """The log-probabilities `[S, L, V]` of rows, each of which the model reads alone."""
    length = rows_SL.shape[1]
    return table(attention, length)[np.ravel_multi_index(tuple(rows_SL.T), (V + 1,) * length)]


def nats_alone(attention: Attention, inputs_L: np.ndarray, targets_L: np.ndarray) -> np.ndarray:
    """The nats of each token under the model, which reads the row alone."""
    return -looked_up(attention, inputs_L[None])[0][np.arange(len(targets_L)), targets_L]


def response_nats(prompt: list[int], response: list[int], shown: bool = True) -> float:
    """The NELBO of a response in nats: n times the mean over K of the mean nats over all sets of K masked tokens."""
    n, before = len(response), prompt if shown else [V] * len(prompt)
    by_count: list[list[float]] = [[] for _ in range(n + 1)]
    for mask in itertools.product([False, True], repeat=n):
        if any(mask):
            seen = np.array([V if hidden else token for hidden, token in zip(mask, response, strict=True)])
            nats = nats_alone(Attention.BIDIRECTIONAL, np.array([*before, *seen]), np.array([*prompt, *response]))
            by_count[sum(mask)].append(nats[len(prompt) :][np.array(mask)].mean())
    return n * float(np.mean([np.mean(values) for values in by_count[1:]]))


def test_the_enumeration_is_the_mean_over_all_orders_of_the_chain_rule():
    prompt, response = map(np.array, PAIRS[0])
    log_p = functools.partial(looked_up, Attention.BIDIRECTIONAL)
    assert response_nats(*PAIRS[0]) == pytest.approx(any_order(log_p, prompt, response, V), rel=1e-6)


@functools.cache
def drawn(objective: ObjectiveSpec, kind: RowKind = RowKind.RESPONSES, draws: int = DRAWS) -> tuple[np.ndarray, dict]:
    """Rows `[X, B, L]` in a new order each time, and the fields of their draws."""
    keys = jax.random.split(jax.random.key(0), draws)
    order_XB = np.array([np.random.default_rng(x).permutation(len(ROWS)) for x in range(draws)])
    rows_XBL = ROWS[order_XB]
    run = jax.jit(
        lambda keys, rows_XBL: jax.lax.map(
            lambda one: objectives.draw(one[0], one[1], objective, V, kind), (keys, rows_XBL)
        )
    )
    made = run(keys, jnp.asarray(rows_XBL))
    fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    return rows_XBL, {key: np.asarray(value) for key, value in fields.items() if value is not None}


def weighted_nats(made: dict, x: int) -> float:
    """The loss of draw x from the model on the rows alone: `sum weight * nats`."""
    total = 0.0
    for inputs_L, targets_L, weight_L, length in zip(
        made["inputs_BL"][x], made["targets_BL"][x], made["weight_BL"][x], made["length_B"][x], strict=True
    ):
        nats = nats_alone(Attention.BIDIRECTIONAL, inputs_L[:length], targets_L[:length])
        assert (weight_L[length:] == 0).all()
        total += float(weight_L[:length] @ nats)
    return total


@pytest.mark.parametrize("objective", FORMS, ids=name)
def test_the_expectation_is_the_nelbo_of_the_responses_given_their_prompts(objective):
    """The unit is a response token of the batch, so that responses weigh as much as they have tokens."""
    _, made = drawn(objective)
    losses = np.array([weighted_nats(made, x) for x in range(DRAWS)])
    share, tokens = objective.drop_prompt, sum(len(response) for _, response in PAIRS)
    expected = sum((1 - share) * response_nats(*pair) + share * response_nats(*pair, shown=False) for pair in PAIRS)
    se = losses.std(ddof=1) / DRAWS**0.5
    assert se < 0.03 * expected / tokens
    assert abs(losses.mean() - expected / tokens) < 4 * se
    plain = sum(response_nats(*pair) for pair in PAIRS)
    assert share == 0 or abs(expected - plain) / tokens > 5 * se  # so that dropping says something


@pytest.mark.parametrize("objective", FORMS, ids=name)
def test_prompts_and_padding_are_as_they_should(objective):
    rows_XBL, made = drawn(objective)
    masked = (made["inputs_BL"] == V) & (rows_XBL != V)
    prompt, response = rows_XBL < 0, (rows_XBL >= 0) & (rows_XBL < V)
    np.testing.assert_array_equal(made["length_B"], (rows_XBL != V).sum(-1))
    np.testing.assert_array_equal(made["targets_BL"][prompt], -1 - rows_XBL[prompt])
    np.testing.assert_array_equal(made["targets_BL"][response], rows_XBL[response])
    assert (made["inputs_BL"][~masked] == made["targets_BL"][~masked]).all()
    assert ((made["weight_BL"] > 0) == (masked & response)).all()
    hidden_prompts = (masked & prompt).any(-1)[prompt.any(-1)]
    assert ((masked & prompt).sum(-1) == np.where((masked & prompt).any(-1), prompt.sum(-1), 0)).all()
    assert abs(hidden_prompts.mean() - objective.drop_prompt) < 4 * (0.25 / hidden_prompts.size) ** 0.5
    if objective.pairs_counts:
        weighted_Pl = made["weight_BL"].reshape(-1, 2 * L) > 0
        through_Pl = np.zeros_like(weighted_Pl)
        np.put_along_axis(through_Pl, made["position_PM"].reshape(-1, L + 1), True, 1)
        assert (through_Pl.sum(-1) == L + 1).all()
        assert (through_Pl | ~weighted_Pl).all()


@pytest.mark.parametrize("objective", [FORMS[0], FORMS[3]], ids=name)
def test_the_loss_and_its_rows_are_those_of_the_draw(objective):
    """The padded batch has the loss of its rows alone, although the head reads L + 1 positions of two rows."""
    model, rows_BL = sharp_model(MDM), put(jax.sharding.get_mesh(), ROWS)

    @jax.jit
    def run(key, rows_BL):
        made = objectives.draw(key, rows_BL, objective, V, RowKind.RESPONSES)
        run = functools.partial(hidden, model, spec=MDM, hardware=HardwareSpec(), length_B=made.length_B)
        arguments = (made, lambda z, at=None: run(z, position_PM=at), place(model).head[...])
        return made, objectives.loss(*arguments, objective, V), objectives.row_losses(*arguments, objective, V)

    for seed in range(5):
        made, value, losses_B = run(jax.random.key(seed), rows_BL)
        fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
        expected = weighted_nats({k: np.asarray(v)[None] for k, v in fields.items() if v is not None}, 0)
        assert value == pytest.approx(expected, rel=1e-5)
        assert losses_B.mean() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [RowKind.RESPONSES, RowKind.WHOLE_PAIRS])
def test_the_arm_has_the_conditional_likelihood(kind):
    model, rows_BL = sharp_model(ARM), put(jax.sharding.get_mesh(), ROWS)

    @jax.jit
    def run(rows_BL):
        made = objectives.draw(jax.random.key(0), rows_BL, NLL, V, kind)
        return objectives.loss(made, lambda z: hidden(model, z, ARM, HardwareSpec()), place(model).head[...], NLL, V)

    nats, tokens = 0.0, 0
    for prompt, response in PAIRS:
        whole = np.array([*prompt, *response])
        first = 0 if kind is RowKind.WHOLE_PAIRS else len(prompt)
        nats += nats_alone(Attention.CAUSAL, np.array([V, *whole[:-1]]), whole)[first:].sum()
        tokens += len(whole) - first
    assert run(rows_BL) == pytest.approx(nats / tokens, rel=1e-5)


def test_whole_pairs_without_padding_are_rows_of_text():
    """The draw of a batch of full rows is bit for bit the draw of the same text."""
    text_BL = jnp.asarray(all_rows(V, L)[:8])
    as_pairs_BL = jnp.where(jnp.arange(L) < 2, -1 - text_BL, text_BL)
    draw = jax.jit(objectives.draw, static_argnums=(2, 3, 4))
    for objective in (FORMS[0], FORMS[3]):
        key = jax.random.key(5)
        one = draw(key, text_BL, objective, V, RowKind.TEXT)
        other = draw(key, as_pairs_BL, objective, V, RowKind.WHOLE_PAIRS)
        np.testing.assert_array_equal(one.inputs_BL, other.inputs_BL)
        np.testing.assert_array_equal(one.targets_BL, other.targets_BL)
        np.testing.assert_allclose(one.weight_BL, other.weight_BL, rtol=1e-6)


@pytest.mark.parametrize("levels", list(LevelSampler))
def test_counts_of_rows_of_any_length(levels):
    """Each count is uniform on 1 .. n, weights included, and neighbours together mask at most max(n, n') + 1."""
    keys, length = jax.random.split(jax.random.key(1), 3000), 9
    tokens_XB = np.random.default_rng(0).integers(1, length + 1, (3000, 6)).astype(np.int32)
    of_each = jax.vmap(lambda key, n_B: pair_counts(key, n_B, levels), out_axes=(0, None))
    count_XB, relative_B = jax.jit(of_each)(keys, tokens_XB)
    count_XB = np.asarray(count_XB)
    assert ((count_XB >= 1) & (count_XB <= tokens_XB)).all()
    weight_XB = np.broadcast_to(1.0 if relative_B is None else relative_B, count_XB.shape)
    for n in (1, 2, 5, length):
        held = tokens_XB == n
        mass = np.bincount(count_XB[held], weight_XB[held], n + 1)[1:]
        effective = mass * (weight_XB[held].sum() / (weight_XB[held] ** 2).sum())
        assert n == 1 or stats.chisquare(effective).pvalue > 1e-3
    if levels in (LevelSampler.ANTITHETIC, LevelSampler.OPTIMAL):
        together, longest = (x.reshape(-1, 2) for x in (count_XB, tokens_XB))
        assert (together.sum(1) <= longest.max(1) + 1).all()


def spec_of(family_objective: ObjectiveSpec, **hardware) -> RunSpec:
    corpus = CorpusSpec(CorpusSource.PAIRS, "pairs.jsonl")
    plain = run_spec(family_objective.family, MDM, L, optim=OptimSpec(global_batch=16))
    data = dataclasses.replace(plain.data, corpus=corpus)
    hardware = HardwareSpec(**hardware)
    return dataclasses.replace(plain, data=data, objective=family_objective, hardware=hardware)


@pytest.mark.parametrize("objective", [FORMS[4], NLL], ids=["mdm", "arm"])
def test_microbatches_and_meshes_have_the_same_gradient(objective):
    rows_BL = ROWS[np.random.default_rng(0).integers(0, len(ROWS), 16)]

    def gradient(data: int, model: int, microbatches: int):
        spec = spec_of(objective, mesh_data=data, mesh_model=model, microbatches=microbatches)
        with on_mesh(data, model):
            params = jax.jit(place)(sharp_model(spec.model, mesh_model=model))
            placed_BL = put(jax.sharding.get_mesh(), rows_BL)

            def run(params, tokens_BL):
                made = objectives.draw(jax.random.key(3), tokens_BL, spec.objective, V, spec.data.rows)
                return loss_and_grads(params, made, spec)

            value, grads = jax.jit(run)(params, placed_BL)
            return float(value), [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]

    (value, grads), (other, others) = gradient(1, 1, 1), gradient(4, 2, 2)
    assert other == pytest.approx(value, rel=1e-5)
    for one, leaf in zip(grads, others, strict=True):
        leaf = leaf[tuple(slice(n) for n in one.shape)]  # the head is padded to the mesh
        np.testing.assert_allclose(leaf, one, atol=1e-5 * np.abs(one).max() + 1e-8)


def test_a_reconstruction_term_is_of_the_response():
    """D3PM without carry-over also predicts clean tokens: those of the response alone."""
    objective = ObjectiveSpec(Variant.D3PM, LevelSampler.STRATIFIED, time_steps=4, carry_over=False)
    rows_XBL, made = drawn(objective, draws=2)
    response = (rows_XBL >= 0) & (rows_XBL < V)
    np.testing.assert_allclose(made["clean_BL"], response / response.sum((1, 2), keepdims=True), rtol=1e-6)
