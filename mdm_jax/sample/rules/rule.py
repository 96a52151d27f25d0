"""The signature of an MDM's samplers: a rule chooses, for one row in one step, the positions that change.

A rule sees one row only, so that it cannot couple the rows of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Array, Key

from mdm_jax.sample.draw import Predicted


class View(NamedTuple):
    """One row in one step, as a rule sees it. Only positions of the present block appear.

    Attributes:
        masked_L: positions that are MASK.
        shown_L: positions that were generated.
        nats_L: nats of the generated tokens when they were drawn; they mean nothing elsewhere.
        step: steps made in this block.
        steps: steps of this block.
        bound: the rule's number, such as a threshold.
        tolerance: scores that differ by no more are equal.
        predicted: the predictions; None for a rule that chooses before the forward pass.
    """

    masked_L: Array
    shown_L: Array
    nats_L: Array
    step: Array
    steps: Array
    bound: Array
    tolerance: float
    predicted: Predicted | None


class Change(NamedTuple):
    """The positions that get their drawn token, and those that become MASK again."""

    reveal_L: Array
    hide_L: Array


@dataclass(frozen=True)
class Rule:
    """A sampler of an MDM.

    Attributes:
        choose: the change of a row, from its view and a random key.
        sees: whether `choose` reads the predictions. If not, a step that reveals nothing takes no forward pass.
        timed: whether a block ends after its last step, and not as soon as no MASK is left.
    """

    choose: Callable[[View, Key[Array, ""]], Change]
    sees: bool
    timed: bool = False


def only_reveal(reveal_L: Array) -> Change:
    """The change that makes no position MASK again."""
    return Change(reveal_L, reveal_L & False)
