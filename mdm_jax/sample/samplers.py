"""The samplers by name, with what their rule depends on."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mdm_jax.sample.rules.ancestral import ANCESTRAL
from mdm_jax.sample.rules.confidence import ENTROPY, MARGIN, PROBABILITY
from mdm_jax.sample.rules.entropy_bound import ENTROPY_BOUND
from mdm_jax.sample.rules.first_hitting import FIRST_HITTING
from mdm_jax.sample.rules.remask import REMASK_CAP, REMASK_CONFIDENCE, REMASK_RESCALE
from mdm_jax.sample.rules.rule import Rule
from mdm_jax.sample.rules.threshold import THRESHOLD


class Sampler(enum.StrEnum):
    """A sampler. An ARM has only `ancestral`, from left to right; see the file of each rule for the others."""

    ANCESTRAL = "ancestral"
    FIRST_HITTING = "first_hitting"
    CONFIDENCE = "confidence"
    MARGIN = "margin"
    ENTROPY = "entropy"
    THRESHOLD = "threshold"
    ENTROPY_BOUND = "entropy_bound"
    REMASK_CAP = "remask_cap"
    REMASK_RESCALE = "remask_rescale"
    REMASK_CONFIDENCE = "remask_confidence"


@dataclass(frozen=True)
class Kind:
    """A sampler's rule, and the number that it depends on.

    Attributes:
        rule: see `Rule`.
        bound: default of the rule's number; None if it has none.
        meaning: what that number is.
        most: the greatest number.
        counts_steps: whether the number of steps is a choice; otherwise it follows from the text.
        repeats: whether more steps than tokens are meaningful.
    """

    rule: Rule
    bound: float | None = None
    meaning: str = ""
    most: float = 1.0
    counts_steps: bool = True
    repeats: bool = False


ETA = "eta, how much is taken back"
KINDS: Mapping[Sampler, Kind] = {
    Sampler.ANCESTRAL: Kind(ANCESTRAL, repeats=True),
    Sampler.FIRST_HITTING: Kind(FIRST_HITTING),
    Sampler.CONFIDENCE: Kind(PROBABILITY),
    Sampler.MARGIN: Kind(MARGIN),
    Sampler.ENTROPY: Kind(ENTROPY),
    Sampler.THRESHOLD: Kind(THRESHOLD, 0.9, "probability above which a token is revealed", counts_steps=False),
    Sampler.ENTROPY_BOUND: Kind(ENTROPY_BOUND, 0.1, "nats of entropy in one step", 1e6, counts_steps=False),
    Sampler.REMASK_CAP: Kind(REMASK_CAP, 0.02, ETA, repeats=True),
    Sampler.REMASK_RESCALE: Kind(REMASK_RESCALE, 0.02, ETA, repeats=True),
    Sampler.REMASK_CONFIDENCE: Kind(REMASK_CONFIDENCE, 1.0, ETA, repeats=True),
}
