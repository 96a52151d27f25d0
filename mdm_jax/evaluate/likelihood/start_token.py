"""A start token for an ARM that was trained without one, such as SMDM's: EOS, which stood before most texts."""

import jax
import numpy as np
from flax import nnx

from mdm_jax.model.transformer import Transformer


def with_start(params: Transformer, vocab_size: int, eos_id: int) -> Transformer:
    """The weights with the embedding of EOS as row V of the table; the other weights are shared, not copied."""
    table = params.embed[...]
    table_VD = np.array(table)
    table_VD[vocab_size] = table_VD[eos_id]
    graph, state = nnx.split(params)
    started = nnx.merge(graph, state)
    started.embed = nnx.Param(jax.device_put(table_VD, table.sharding))
    return started
