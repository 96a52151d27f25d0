"""A float32 residual stream in a bfloat16 model: nearer to float32, the same on two devices and with kept keys."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, put, run_spec, tokens

from mdm_jax.devices.sharding import place, replicate, split_over_data
from mdm_jax.model.cached import Cache, empty_cache, fill_cache, read_next, split_layers
from mdm_jax.model.transformer import Transformer, compute_dtype, hidden
from mdm_jax.model.window import read_window
from mdm_jax.objectives.arm import shifted
from mdm_jax.spec import Attention, ComputeDtype, Family, HardwareSpec, ModelSpec
from mdm_jax.spec.programs import evaluation_program, state_program, step_program

pytestmark = pytest.mark.usefixtures("compiled_quickly")
EXACT = ModelSpec(n_layers=16, d_model=32, n_heads=2, d_ffn=64, vocab_size=32)
SHALLOW = dataclasses.replace(EXACT, n_layers=3)
SEEDS, B, L, V = range(4), 4, 16, EXACT.vocab_size
LOGITS_SHARE, GRADIENT_SHARE = 0.7, 0.9
"""Most error with the option, as a share of the error without it; measured .49 to .58, and .51 to .78."""
SHARDED_ERROR = 1e-2
"""Most relative difference on two devices, whose sums have another order; measured up to .0028, and up to .005."""
LOUD, CACHED_SHARE = 64.0, 0.3
"""Most distance of a pass with kept keys from a whole pass, as a share of that without the option; measured 0, .11."""


def rough(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, compute_dtype=ComputeDtype.BFLOAT16)


def kept(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(rough(spec), float32_residual=True)


def read_rows(attention: Attention) -> np.ndarray:
    """The rows as the family reads them: half of the tokens masked, or all tokens one place later."""
    rows_BL = tokens((B, L), V)
    if attention is Attention.CAUSAL:
        return np.asarray(shifted(jnp.asarray(rows_BL), V))
    return np.where(np.random.default_rng(1).random((B, L)) < 0.5, V, rows_BL)


@functools.cache
def weights() -> tuple[Transformer, ...]:
    """Fresh float32 weights of each seed, on the host. Families and number formats share them."""
    with on_mesh():
        fresh = jax.jit(lambda key: Transformer(EXACT, key))
        return tuple(jax.device_get(fresh(jax.random.key(seed))) for seed in SEEDS)


def nats_and_logits(model: Transformer, z_BL: jax.Array, spec: ModelSpec) -> tuple[jax.Array, jax.Array]:
    """Mean nats of the rows' tokens, and the logits, float32."""
    h_BLD = hidden(model, z_BL, spec, HardwareSpec())
    assert h_BLD.dtype == compute_dtype(spec)
    logits_BLV = (h_BLD @ replicate(model.head[...].astype(h_BLD.dtype))).astype(jnp.float32)
    picked_BLV = jax.nn.one_hot(tokens((B, L), V), V) * jax.nn.log_softmax(logits_BLV)
    return -picked_BLV.sum() / (B * L), logits_BLV


def logits(spec: ModelSpec) -> np.ndarray:
    """Logits `[seed, B, L, V]` on one device."""
    with on_mesh():
        z_BL = put(jax.sharding.get_mesh(), read_rows(spec.attention))
        run = jax.jit(lambda model: nats_and_logits(place(model), z_BL, spec)[1])
        return np.stack([run(model) for model in weights()])


@functools.cache
def logits_and_gradients(spec: ModelSpec, data: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[seed, B, L, V]`, and gradients of the mean nats `[seed, P]`, on `data` devices."""
    with on_mesh(data):
        z_BL = put(jax.sharding.get_mesh(), read_rows(spec.attention))
        put_model = jax.jit(place)
        run = jax.jit(jax.grad(lambda model: nats_and_logits(model, z_BL, spec), has_aux=True))
        gradients, found = zip(*(run(put_model(model)) for model in weights()), strict=True)
    leaves = [jax.tree.leaves(gradient) for gradient in gradients]
    assert {leaf.dtype for leaf in leaves[0]} == {jnp.dtype(jnp.float32)}
    return np.stack(found), np.stack([np.concatenate([np.ravel(leaf) for leaf in of_seed]) for of_seed in leaves])


def errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The relative error of each seed."""
    flat, right = (x.reshape(len(SEEDS), -1) for x in (found, expected))
    return np.linalg.norm(flat - right, axis=1) / np.linalg.norm(right, axis=1)


def test_logits_of_an_mdm_are_nearer_to_float32():
    with_option, without = (errors(logits(of(EXACT)), logits(EXACT)) for of in (kept, rough))
    assert (with_option < LOGITS_SHARE * without).all()


@pytest.mark.parametrize("attention", [pytest.param(Attention.BIDIRECTIONAL, marks=pytest.mark.slow), Attention.CAUSAL])
def test_logits_and_gradients_are_nearer_to_float32(attention):
    """One family by default, because three backward passes take seconds to compile."""
    spec = dataclasses.replace(EXACT, attention=attention)
    right, with_option, without = (logits_and_gradients(one) for one in (spec, kept(spec), rough(spec)))
    for index, share in enumerate((LOGITS_SHARE, GRADIENT_SHARE)):
        assert np.isfinite(with_option[index]).all()
        error, most = (errors(found[index], right[index]) for found in (with_option, without))
        assert (error < share * most).all()


def test_logits_with_dropout_and_time_conditioning_are_nearer_to_float32():
    """The zeros of dropout do not depend on the dtype, and the conditioning of the layers is loud here."""
    spec = dataclasses.replace(EXACT, dropout=0.1, time_conditioning=True)

    def found(own: ModelSpec) -> np.ndarray:
        with on_mesh():
            z_BL = put(jax.sharding.get_mesh(), read_rows(own.attention))
            seed_B = split_over_data(jnp.arange(B, dtype=jnp.uint32))

            def outputs(key: jax.Array) -> jax.Array:
                model = Transformer(own, key)
                weights = 0.2 * jax.random.normal(key, model.blocks.modulation[...].shape)
                model.blocks.modulation[...] = weights
                return hidden(place(model), z_BL, own, HardwareSpec(), seed_B=seed_B).astype(jnp.float32)

            run = jax.jit(outputs)
            return np.stack([run(jax.random.key(seed)) for seed in SEEDS])

    exact = found(spec)
    with_option, without = (errors(found(of(spec)), exact) for of in (kept, rough))
    assert (with_option < LOGITS_SHARE * without).all()
    quiet = found(dataclasses.replace(kept(spec), dropout=0.0))
    assert (errors(quiet, exact) > 10 * with_option).all()


def test_two_devices_find_the_same_logits_and_gradients():
    spec = kept(dataclasses.replace(EXACT, attention=Attention.CAUSAL))
    for two, one in zip(logits_and_gradients(spec, 2), logits_and_gradients(spec), strict=True):
        assert (errors(two, one) < SHARDED_ERROR).all()


# Kept keys and values


def loud() -> Transformer:
    """Weights whose stream is large beside what a layer adds, so that most of the rounding is the stream's."""
    model = jax.tree.map(jnp.asarray, weights()[0])
    model.blocks = jax.tree.map(lambda w: w[: SHALLOW.n_layers], model.blocks)
    model.embed[...] = LOUD * model.embed[...]
    return model


def on_one_device(spec: ModelSpec, run: Callable[[Transformer, jax.Array], list[jax.Array]]) -> list[np.ndarray]:
    """What `run` finds for the loud weights and the family's rows."""
    with on_mesh():
        z_BL = put(jax.sharding.get_mesh(), read_rows(spec.attention))
        return [np.asarray(x, np.float32) for x in jax.jit(lambda model: run(place(model), z_BL))(loud())]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def whole_passes(attention: Attention) -> tuple[np.ndarray, float]:
    """The trunk's output `[B, L, D]` with the option, and its distance from the output without."""
    spec = dataclasses.replace(SHALLOW, attention=attention)

    def output(own: ModelSpec) -> np.ndarray:
        return on_one_device(own, lambda model, z_BL: [hidden(model, z_BL, own, HardwareSpec())])[0]

    with_option, without = output(kept(spec)), output(rough(spec))
    return with_option, distance(without, with_option)


def test_an_arm_that_reads_token_by_token_has_the_same_stream():
    """Its outputs are those of whole passes, and its keys and values those of `fill_cache`."""
    spec = kept(dataclasses.replace(SHALLOW, attention=Attention.CAUSAL))

    def run(model: Transformer, z_BL: jax.Array) -> list[jax.Array]:
        layers = split_layers(model, spec)

        def step(cache: Cache, at: tuple[jax.Array, jax.Array]) -> tuple[Cache, jax.Array]:
            position_B = split_over_data(jnp.full(B, at[1]))
            h_B1D, cache = read_next(model, layers, at[0], position_B, cache, spec)
            return cache, h_B1D[:, 0]

        read, h_LBD = jax.lax.scan(step, empty_cache(spec, B, L), (z_BL.T, jnp.arange(L)))
        filled = fill_cache(model, layers, z_BL, spec)
        return [h_LBD.swapaxes(0, 1), read[-1].k_BHLK, filled[-1].k_BHLK]

    h_BLD, read_BHLK, filled_BHLK = on_one_device(spec, run)
    whole_BLD, without = whole_passes(Attention.CAUSAL)
    assert distance(h_BLD, whole_BLD) < CACHED_SHARE * without
    assert distance(filled_BHLK, read_BHLK) < CACHED_SHARE * without


def test_an_mdm_that_reads_windows_has_the_same_stream():
    spec = kept(SHALLOW)

    def run(model: Transformer, z_BL: jax.Array) -> list[jax.Array]:
        layers, length_B = split_layers(model, spec), split_over_data(jnp.full(B, L))
        cache = fill_cache(model, layers, z_BL, spec, length_B)
        window_BW = split_over_data(jnp.tile(jnp.arange(0, L, 2), (B, 1)))
        return [read_window(model, layers, z_BL, window_BW, cache, spec, length_B)]

    [h_BWD] = on_one_device(spec, run)
    whole_BLD, without = whole_passes(Attention.BIDIRECTIONAL)
    assert distance(h_BWD, whole_BLD[:, ::2]) < CACHED_SHARE * without


# The spec


def test_the_option_is_of_bfloat16_only_and_leaves_other_run_ids_alone():
    refused = r"^model\.float32_residual = True: must be false \(the default\) unless compute_dtype is bfloat16$"
    with pytest.raises(ValueError, match=refused):
        dataclasses.replace(EXACT, float32_residual=True)
    assert run_spec(Family.MDM, rough(EXACT), L).run_id == "mdm-16x32-b96838e2864e"
    assert run_spec(Family.MDM, kept(EXACT), L).run_id != run_spec(Family.MDM, rough(EXACT), L).run_id


@pytest.mark.parametrize("family", Family)
def test_the_option_decides_the_programs_but_not_the_first_weights(family):
    with_option, without = (run_spec(family, of(EXACT), L) for of in (kept, rough))
    assert with_option.model.float32_residual
    assert step_program(with_option) != step_program(without)
    assert evaluation_program(with_option) != evaluation_program(without)
    assert state_program(with_option) == state_program(without)
