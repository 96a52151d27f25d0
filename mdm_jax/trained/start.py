"""The trained weights that a run begins with (`RunSpec.start`): checked against the run, and put on its mesh.

The step, the optimiser's state and the data begin anew. An ARM without a start token, such as SMDM's, gets EOS in its
place, as in all evaluations.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from mdm_jax.files.fingerprint import fingerprint_of
from mdm_jax.interop.model_file import Weights
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import ModelSpec, RunSpec
from mdm_jax.spec.validation import require, to_dict
from mdm_jax.train.state import TrainState
from mdm_jax.trained.load import load
from mdm_jax.trained.weights import named_weights, weight_name

SHAPE = ("attention", "n_layers", "d_model", "n_heads", "d_ffn", "vocab_size", "time_conditioning", "mask_column")
"""The fields of ModelSpec that decide what the weights are."""


def starting_weights(run: RunSpec, tokenizer_hash: str) -> Weights:
    """The weights at `run.start.path` by their names, float32, on the host.

    Those of a run are the ones that it is evaluated by: its moving average, if it keeps one.

    Args:
        run: a run with `start.path`.
        tokenizer_hash: hash of the tokenizer of the run's data.

    Raises:
        ValueError: there is no model at the path, or it is not the planned one; or its shape (the fields that differ
            are named) or its tokenizer is another.
        OSError: a file cannot be read now.
    """
    path, planned = run.start.path, run.start.fingerprint
    require(bool(planned), "start.fingerprint", planned, "that of start.path: plan the run, which computes it")
    model = load(path)
    found = fingerprint_of(path, model.step)
    require(found == planned, f"{path}: fingerprint", found, f"{planned}, with which this run was planned: plan again")
    _check_shape(path, model.spec, run.model)
    theirs = model.tokenizer.hash
    bound = f"{tokenizer_hash}, that of {run.data.directory}: prepare the data with the model's tokenizer"
    require(theirs == tokenizer_hash, f"{path}: tokenizer", theirs, bound)
    return named_weights(model.params)


def _check_shape(path: str, theirs: ModelSpec, ours: ModelSpec) -> None:
    there, here = ({name: to_dict(getattr(spec, name)) for name in SHAPE} for spec in (theirs, ours))
    differing = [f"{name} = {there[name]!r} and not {here[name]!r}" for name in SHAPE if there[name] != here[name]]
    if differing:
        raise ValueError(f"{path}: is another model than the run's: it has {', '.join(differing)}: set model.* to it")


def begun_with(fresh: TrainState, weights: Weights) -> TrainState:
    """The state before step 0 with these weights in place of the random ones, in the layout of `fresh`.

    Args:
        fresh: the run's new state on its mesh.
        weights: whole weights by name. A mesh may have padded the head of `fresh` with zeros.
    """

    def put(entry: Any, leaf: Array) -> Array:
        weight = weights[weight_name(entry)].astype(leaf.dtype)
        padding = [(0, there - here) for there, here in zip(leaf.shape, weight.shape, strict=True)]
        padded = np.pad(weight, padding)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: padded[index])

    def placed(model: Transformer) -> Transformer:
        return jax.tree_util.tree_map_with_path(put, model)

    average = None if fresh.average is None else placed(fresh.average)
    return dataclasses.replace(fresh, params=placed(fresh.params), average=average)
