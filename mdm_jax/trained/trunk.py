"""The trunk of a trained model, for tasks that put another head on it."""

from typing import NamedTuple

import jax
from jax.sharding import Mesh

from mdm_jax.devices.sharding import place
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import ModelSpec
from mdm_jax.trained.model import Model


class Trunk(NamedTuple):
    """Weights in their stored layout on a mesh, and what is needed to read rows with them."""

    params: Transformer
    spec: ModelSpec
    mesh: Mesh


def trunk_of(model: Model) -> Trunk:
    """The trunk of a model. An ARM that was trained without a start token reads EOS in its place.

    Raises:
        ValueError: the model is such an ARM, and its tokenizer is unusable.
    """
    return Trunk(model.params, model.spec, model._mesh)


def fresh_trunk(trunk: Trunk, seed: int) -> Trunk:
    """A trunk of the same shape with the initial weights of a run with this seed."""
    with jax.set_mesh(trunk.mesh):
        make = jax.jit(lambda: place(Transformer(trunk.spec, jax.random.key(seed))))
        return trunk._replace(params=make())
