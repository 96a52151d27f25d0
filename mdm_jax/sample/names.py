"""The samplers' names, and the numbers that they depend on, without jax: command lines name them in their help."""

import enum
from collections.abc import Mapping


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


BOUNDS: Mapping[Sampler, float] = {
    Sampler.THRESHOLD: 0.9,
    Sampler.ENTROPY_BOUND: 0.1,
    Sampler.REMASK_CAP: 0.02,
    Sampler.REMASK_RESCALE: 0.02,
    Sampler.REMASK_CONFIDENCE: 1.0,
}
"""Default of the number that a sampler depends on; the other samplers have none."""
