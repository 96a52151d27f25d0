"""Tiny models and their mesh, for tests of the numerical core: shapes that compile in seconds and count by hand."""

import contextlib
import functools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from mdm_jax.devices.sharding import global_batch, make_mesh
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import (
    BYTES_VOCAB_SIZE,
    DataSpec,
    Family,
    ModelSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    pair,
)


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Programs are compiled with few optimisations, in half the time; what they compute is the same up to rounding."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def on_mesh(data: int = 1, model: int = 1) -> contextlib.AbstractContextManager:
    """The ambient mesh of the first `data * model` devices."""
    return jax.set_mesh(make_mesh(data, model, jax.devices()[: data * model]))


def run_spec(family: Family, model: ModelSpec, seq_len: int, **changes) -> RunSpec:
    """A run of this trunk on rows of this length; its vocabulary is the model's."""
    kind = TokenizerKind.BYTES if model.vocab_size == BYTES_VOCAB_SIZE else TokenizerKind.SENTENCEPIECE
    data = DataSpec(tokenizer=TokenizerSpec(kind, model.vocab_size), seq_len=seq_len)
    return pair(RunSpec(model=model, data=data, **changes), family)


def put(mesh: Mesh, x_BL: np.ndarray) -> jax.Array:
    """A batch held whole here, as the training loop puts it on a mesh."""
    return global_batch(mesh, (x_BL.shape[0], x_BL.shape[1]), lambda first, last: x_BL[first:last])


def tokens(shape: tuple[int, ...], vocab_size: int, seed: int = 0) -> np.ndarray:
    """Random int32 tokens in 0..V-1."""
    return np.random.default_rng(seed).integers(0, vocab_size, shape).astype(np.int32)


def sharp_model(spec: ModelSpec, mesh_model: int = 1) -> Transformer:
    """Fresh weights with the head and the queries scaled up, so that predictions are far from uniform."""
    return _sharp_model(spec, mesh_model, jax.sharding.get_mesh())


@functools.cache
def _sharp_model(spec: ModelSpec, mesh_model: int, _: Mesh) -> Transformer:
    def build() -> Transformer:
        model = Transformer(spec, jax.random.key(0), mesh_model)
        model.head[...] = 4 * model.head[...]
        model.blocks.qkv[...] = 2 * model.blocks.qkv[...]
        return model

    return jax.jit(build)()
