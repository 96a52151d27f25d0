"""Trains a head, alone or together with the trunk, and predicts labels with both.

The optimiser is that of the runs: AdamW with a global clip, a warm-up over a tenth of the steps, and a cosine decay. It
takes a fixed number of passes over the examples. Nothing is chosen by the test examples.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from mdm_jax.devices.sharding import place, replicate, row_shards, split_over_data
from mdm_jax.spec import ModelSpec, OptimSpec, ScheduleSpec
from mdm_jax.spec.validation import require
from mdm_jax.tasks.classify.examples import Rows
from mdm_jax.tasks.classify.head import Head, Pool, class_logits, class_nats, pooled, zero_head
from mdm_jax.train.optim import LearningRate, adamw, learning_rate
from mdm_jax.trained.trunk import Trunk

SMDM_RATE, SMDM_WIDTH = 2e-4, 768
"""SMDM fine-tunes with this rate at widths from 768 on. Narrower trunks take a larger rate."""
HEAD_RATE = 1e-2
PREDICTED_TOKENS = 1 << 14


@dataclass(frozen=True)
class Settings:
    """How a head is trained."""

    epochs: int = 5
    batch: int = 32
    lr: float = 0.0
    """Peak learning rate. 0 takes 2e-4 at width 768 and in inverse proportion to the width; 1e-2 for a head alone."""
    freeze: bool = False
    """Whether the trunk keeps its weights."""
    pool: Pool = Pool.MEAN

    def __post_init__(self) -> None:
        require(1 <= self.epochs <= 10_000, "--epochs", self.epochs, "from 1 to 10000")
        require(2 <= self.batch <= 1 << 16, "--batch", self.batch, "from 2 to 65536 examples")
        require(0 <= self.lr < 10, "--lr", self.lr, "above 0 and below 10, or 0 for the default")

    def rate(self, width: int) -> float:
        """The peak learning rate for a trunk of this width."""
        return self.lr or (HEAD_RATE if self.freeze else SMDM_RATE * SMDM_WIDTH / width)


class Classifier(NamedTuple):
    """A trunk and the head that was trained on it."""

    trunk: Trunk
    head: Head
    pool: Pool
    train_nats: float
    """Mean loss of the examples in the last pass, in nats."""


class _Shape(NamedTuple):
    """What the compiled programs depend on."""

    model: ModelSpec
    pool: Pool
    freeze: bool
    optim: OptimSpec


def train_head(trunk: Trunk, rows: Rows, classes: int, settings: Settings, seed: int) -> Classifier:
    """The head, and the trunk if it is not frozen, after all passes over the examples.

    Args:
        trunk: the trunk, which is left as it is.
        rows: the examples to train on.
        classes: number of labels.
        settings: how to train.
        seed: order of the examples.

    Raises:
        ValueError: the loss is not finite.
    """
    batch = _batch(settings.batch, len(rows), trunk.mesh)
    steps = max(1, round(settings.epochs * len(rows) / batch))
    optim = OptimSpec(lr_peak=settings.rate(trunk.spec.d_model))
    shape = _Shape(trunk.spec, settings.pool, settings.freeze, optim)
    rate = learning_rate(optim, ScheduleSpec(steps=steps, warmup_steps=max(1, steps // 10)))
    vectors_SD = read_vectors(trunk, rows, settings.pool) if settings.freeze else None
    losses = []
    with jax.set_mesh(trunk.mesh):
        state = _start(trunk.params, shape, classes)
        for step, index_B in zip(range(steps), _batches(len(rows), batch, seed), strict=False):
            taken = rows.take(index_B)
            inputs = (taken.tokens_SL, taken.length_S) if vectors_SD is None else vectors_SD[index_B]
            state, nats = _step(state, inputs, taken.label_S, jnp.int32(step), rate, shape)
            losses.append(nats)
    last = float(np.mean([float(nats) for nats in losses[-max(1, len(rows) // batch) :]]))
    require(math.isfinite(last), "loss", last, f"finite: take a smaller --lr than {optim.lr_peak:g}")
    params = trunk.params if settings.freeze else state[0]["trunk"]
    return Classifier(trunk._replace(params=params), state[0]["linear"], settings.pool, last)


def _batch(wanted: int, examples: int, mesh: Mesh) -> int:
    """Examples of a step: at most those that there are, and a multiple of the parts into which the mesh splits them."""
    shards = row_shards(mesh)
    return max(1, min(wanted, examples) // shards) * shards


def _batches(examples: int, batch: int, seed: int) -> Iterator[Int[np.ndarray, "B"]]:
    """Numbers of the examples of each step: one shuffled pass after another, end to end."""
    draw, held = np.random.default_rng(seed), np.zeros(0, np.int64)
    while True:
        while len(held) < batch:
            held = np.concatenate([held, draw.permutation(examples)])
        yield held[:batch]
        held = held[batch:]


@functools.partial(jax.jit, static_argnames=("shape", "classes"))
def _start(params: Any, shape: _Shape, classes: int) -> tuple[dict[str, Any], Any]:
    """What is trained, and the state of its optimiser. The weights are copied, because the steps overwrite them."""
    trained: dict[str, Any] = {"linear": zero_head(shape.model.d_model, classes)}
    trained |= {} if shape.freeze else {"trunk": jax.tree.map(jnp.copy, params)}
    return place(trained), place(adamw(shape.optim).init(trained))  # type: ignore[arg-type]  # a pytree


@functools.partial(jax.jit, static_argnames="shape", donate_argnums=0)
def _step(
    state: tuple[dict[str, Any], Any], inputs: Any, label_B: Any, step: Any, rate: LearningRate, shape: _Shape
) -> tuple[tuple[dict[str, Any], Any], Any]:
    """One step of the optimiser; `inputs` are tokens and lengths, or the vectors of a frozen trunk."""
    trained, optimiser = state

    def loss(trained: dict[str, Any]) -> Any:
        if shape.freeze:
            vectors_BD = split_over_data(inputs)
        else:
            tokens_BL, length_B = inputs
            vectors_BD = pooled(trained["trunk"], shape.model, tokens_BL, length_B, shape.pool)
        return class_nats(class_logits(trained["linear"], vectors_BD), label_B)

    nats, gradient = jax.value_and_grad(loss)(trained)
    direction, optimiser = adamw(shape.optim).update(gradient, optimiser, trained)  # type: ignore[arg-type]  # a pytree
    lr = rate.at(step)
    trained = jax.tree.map(lambda p, d: p - lr * d, trained, direction)
    return (place(trained), place(optimiser)), nats


def read_vectors(trunk: Trunk, rows: Rows, pool: Pool) -> Float[np.ndarray, "S D"]:
    """The pooled vector of each row."""
    size = _batch(max(1, PREDICTED_TOKENS // rows.tokens_SL.shape[1]), len(rows), trunk.mesh)
    found = []
    with jax.set_mesh(trunk.mesh):
        for start in range(0, len(rows), size):
            index_B = np.arange(start, start + size) % len(rows)  # the first rows fill the last batch
            taken = rows.take(index_B)
            found.append(_read(trunk.params, taken.tokens_SL, taken.length_S, trunk.spec, pool))
    return np.concatenate([np.asarray(part) for part in found])[: len(rows)]


@functools.partial(jax.jit, static_argnames=("spec", "pool"))
def _read(params: Any, tokens_BL: Any, length_B: Any, spec: ModelSpec, pool: Pool) -> Any:
    return replicate(pooled(params, spec, tokens_BL, length_B, pool))


def log_probabilities(classifier: Classifier, rows: Rows) -> Float[np.ndarray, "S C"]:
    """The log-probability of each class for each row, in nats."""
    vectors_SD = read_vectors(classifier.trunk, rows, classifier.pool).astype(np.float64)
    weight_DC, bias_C = (np.asarray(x, np.float64) for x in (classifier.head.weight_DC, classifier.head.bias_C))
    logits_SC = vectors_SD @ weight_DC + bias_C
    return logits_SC - np.logaddexp.reduce(logits_SC, 1, keepdims=True)
