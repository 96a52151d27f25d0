"""A model's weights by their own names, as files of weights have them."""

import hashlib
from typing import Any

import jax
import numpy as np

from mdm_jax.interop.model_file import Weights
from mdm_jax.model.transformer import Transformer


def named_weights(params: Transformer) -> Weights:
    """The weights by name, on the host."""
    named = jax.tree_util.tree_flatten_with_path(params)[0]
    return {weight_name(entry): np.asarray(leaf) for entry, leaf in named}


def weights_hash(about: tuple[Any, ...], params: Transformer) -> str:
    """SHA-256 (hex) of the weights, and of what else is to count."""
    digest = hashlib.sha256(repr(about).encode())
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def weight_name(entry: Any) -> str:
    """A weight's own name: `qkv` of the leaf `blocks.qkv.value`."""
    return jax.tree_util.keystr(entry, simple=True, separator=".").split(".")[-2]
