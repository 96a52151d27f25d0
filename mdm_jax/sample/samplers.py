"""The samplers by name, with what their rule depends on."""

from collections.abc import Mapping
from dataclasses import dataclass

from mdm_jax.sample.names import BOUNDS, Sampler
from mdm_jax.sample.rules.ancestral import ANCESTRAL
from mdm_jax.sample.rules.confidence import ENTROPY, MARGIN, PROBABILITY
from mdm_jax.sample.rules.entropy_bound import ENTROPY_BOUND
from mdm_jax.sample.rules.first_hitting import FIRST_HITTING
from mdm_jax.sample.rules.remask import REMASK_CAP, REMASK_CONFIDENCE, REMASK_RESCALE
from mdm_jax.sample.rules.rule import Rule
from mdm_jax.sample.rules.threshold import THRESHOLD


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


SURE = "probability above which a token is revealed"
NATS = "nats of entropy in one step"
ETA = "eta, how much is taken back"
KINDS: Mapping[Sampler, Kind] = {
    Sampler.ANCESTRAL: Kind(ANCESTRAL, repeats=True),
    Sampler.FIRST_HITTING: Kind(FIRST_HITTING),
    Sampler.CONFIDENCE: Kind(PROBABILITY),
    Sampler.MARGIN: Kind(MARGIN),
    Sampler.ENTROPY: Kind(ENTROPY),
    Sampler.THRESHOLD: Kind(THRESHOLD, BOUNDS[Sampler.THRESHOLD], SURE, counts_steps=False),
    Sampler.ENTROPY_BOUND: Kind(ENTROPY_BOUND, BOUNDS[Sampler.ENTROPY_BOUND], NATS, 1e6, counts_steps=False),
    Sampler.REMASK_CAP: Kind(REMASK_CAP, BOUNDS[Sampler.REMASK_CAP], ETA, repeats=True),
    Sampler.REMASK_RESCALE: Kind(REMASK_RESCALE, BOUNDS[Sampler.REMASK_RESCALE], ETA, repeats=True),
    Sampler.REMASK_CONFIDENCE: Kind(REMASK_CONFIDENCE, BOUNDS[Sampler.REMASK_CONFIDENCE], ETA, repeats=True),
}
