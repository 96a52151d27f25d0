"""A model as another project's files hold it: its shape, and its weights by our names."""

from dataclasses import dataclass

import numpy as np

from mdm_jax.spec import ModelSpec

Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor, by its name."""
Weights = dict[str, np.ndarray]
"""Tensors by their names."""


@dataclass(frozen=True)
class ModelFile:
    """The content of a file or folder: float32 weights by our names and in our layouts, `embed` with V+1 rows."""

    spec: ModelSpec
    seq_len: int
    has_start: bool
    """Whether id V is a token that the model reads: MASK for every MDM, the start token for an ARM that has one.

    An ARM without a start token has zeros in the last row of `embed`, which nothing may read.
    """
    weights: Weights
