"""Draw: what one random draw of the training loss gives the model to read and to predict."""

from typing import Any

from flax import struct


@struct.dataclass
class Draw:
    """`inputs` in 0..V (V is MASK or start), `targets` in 0..V-1, `weight` float32, 0 where nothing is predicted.

    The fields are arrays `[B, ...]`, of which several may be stacked on a leading axis (microbatches, steps), or jax's
    abstract values in their place. Hence `Any`.
    """

    inputs_BL: Any
    targets_BL: Any
    weight_BL: Any
    length_B: Any = None
    """Tokens of each row, if the batch is cut; the positions after them are padding."""
    level_B: Any = None
    """Each row's probability of MASK, in the forms that mask tokens independently of each other."""
    jump_B: Any = None
    """D3PM: the probability that a token which is masked at time t is not masked one step earlier."""
    clean_BL: Any = None
    """D3PM without carry-over: the weight of each token in the reconstruction term, which reads the clean tokens."""
    position_PM: Any = None
    """Pairs of counts: the L + 1 positions of each pair of rows that go through the head, ascending in 0..2L-1.

    By default they are those that read MASK. Where fewer have a weight, others fill up the number.
    """
    seed_B: Any = None
    """Each row's seed of its dropout, uint32."""
