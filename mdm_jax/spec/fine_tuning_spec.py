"""StartSpec: the trained weights that a run begins with. Also the checks of a run whose rows are pairs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mdm_jax.spec.kinds import Estimator, Likelihood, RowKind, Variant, Weighting
from mdm_jax.spec.objective_spec import ObjectiveSpec
from mdm_jax.spec.validation import NOT_HASHED, require

FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class StartSpec:
    """The trained weights that a run begins with; none by default, so that the weights are random.

    The optimiser's state is always new. The path is that of a run's folder, a safetensors file of SMDM's, or a Hugging
    Face folder, as for `mdm_jax.load`. The weights belong to the result of the run, and the path does not: planning
    writes the fingerprint of the files, and the run refuses others.
    """

    path: str = field(default="", metadata=NOT_HASHED)
    fingerprint: str = ""
    """SHA-256 (hex) of the files at the path; see `mdm_jax/files/fingerprint.py`."""

    def __post_init__(self) -> None:
        known = bool(FINGERPRINT.fullmatch(self.fingerprint))
        require(known or not self.fingerprint, "start.fingerprint", self.fingerprint, "64 hex digits, or empty")
        require(bool(self.path) or not known, "start.path", self.path, "given with start.fingerprint")


def check_rows(
    kind: RowKind,
    objective: ObjectiveSpec,
    time_conditioning: bool,
    estimator: Estimator,
    likelihoods: Sequence[Likelihood],
) -> None:
    """Returns if the loss and the evaluation fit rows of this kind.

    Raises:
        ValueError: prompts are dropped and the rows have none; or the rows are pairs, and a setting needs whole rows.
    """
    dropped = objective.drop_prompt
    fits = not dropped or kind is RowKind.RESPONSES
    require(fits, "objective.drop_prompt", dropped, "0 unless the rows are pairs of which only the response is scored")
    if kind is RowKind.TEXT:
        return
    short = objective.stochastic_length
    require(not short, "objective.stochastic_length", short, "0 for pairs: each pair has a length of its own")
    counts = objective.variant is Variant.COUNT
    fits = not counts or objective.weighting is Weighting.ELBO
    require(fits, "objective.weighting", objective.weighting.value, "elbo for the variant count with pairs")
    fits = counts or not time_conditioning
    require(fits, "model.time_conditioning", time_conditioning, "false for pairs, unless objective.variant is count")
    fits = estimator is Estimator.COUNTS
    require(fits, "evaluation.estimator", estimator.value, "counts (the default) for pairs")
    asked = [one.value for one in likelihoods]
    require(not asked, "evaluation.likelihoods", asked, "none for pairs: Model.loglikelihood has them, pair by pair")
