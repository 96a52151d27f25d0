"""The estimator of each task: the method, the guidance and the draws with which the answers of a task are scored.

The preset `smdm` has the settings of SMDM (Nie et al. 2024, arXiv 2410.18514) for its eight tasks: the chain rule or
1024 Monte Carlo draws, and the weight of unsupervised classifier-free guidance. The names of the tasks are those of
lm-evaluation-harness. The paper's LAMBADA is the variant of OpenAI; the preset treats the other one alike.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mdm_jax.evaluate.likelihood.pairs import Options, known_method
from mdm_jax.spec import Family, Likelihood
from mdm_jax.spec.validation import require


@dataclass(frozen=True)
class Estimator:
    """How the log-likelihood of an answer is estimated.

    Attributes:
        method: see `Likelihood`.
        guidance: weight w of classifier-free guidance; 0 is the model itself.
        draws: most Monte Carlo draws for each answer; exact methods ignore them.
        max_se: standard error in nats at which the draws stop; 0 takes all draws.
    """

    method: Likelihood = Likelihood.NELBO
    guidance: float = 0.0
    draws: int = 128
    max_se: float = 0.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.guidance), "guidance", self.guidance, "finite")
        Options(self.method, self.draws, self.max_se)  # refuses bad numbers


def _chain(guidance: float) -> Estimator:
    return Estimator(Likelihood.LEFT_TO_RIGHT, guidance)


def _monte_carlo(guidance: float) -> Estimator:
    return Estimator(Likelihood.NELBO, guidance, draws=1024)


PRESETS: Mapping[str, Mapping[str, Estimator]] = {
    "smdm": {
        "lambada_openai": _chain(1.1),
        "lambada_standard": _chain(1.1),
        "openbookqa": _chain(1.6),
        "boolq": _chain(1.6),
        "piqa": _chain(0.6),
        "arc_easy": _monte_carlo(0.6),
        "social_iqa": _monte_carlo(0.6),
        "race": _monte_carlo(0.7),
        "hellaswag": _monte_carlo(0.7),
    }
}


@dataclass(frozen=True)
class Estimators:
    """The choice of an estimator for each task of a model.

    An ARM has one exact likelihood and no guidance, so that all its tasks have the method `left_to_right`.

    Attributes:
        family: MDM or ARM.
        preset: name of a preset, or empty. Tasks that the preset does not name have the default estimator.
        method: if given, the name of the method of all tasks, in place of the preset's.
        guidance: if given, the guidance of all tasks.
        draws: if given, the draws of all tasks.
        max_se: if given, the standard error at which the draws of all tasks stop.
    """

    family: Family
    preset: str = ""
    method: str | None = None
    guidance: float | None = None
    draws: int | None = None
    max_se: float | None = None

    def __post_init__(self) -> None:
        require(self.preset in ("", *PRESETS), "preset", self.preset, f"one of {', '.join(PRESETS)}")
        if self.method is not None:
            known_method(self.method)
        if self.family is Family.ARM:
            fits = self.method in (None, Likelihood.LEFT_TO_RIGHT, Likelihood.NELBO)
            require(fits, "method", str(self.method), "left_to_right for an ARM, which has no other likelihood")
            require(
                not self.guidance, "guidance", self.guidance, "0 for an ARM: it has no MASK to hide the prompt with"
            )
        self.of("")  # refuses bad numbers now, before a model is compiled

    def of(self, task: str | None) -> Estimator:
        """The estimator of a task, by its name in lm-evaluation-harness."""
        preset = PRESETS[self.preset] if self.preset else {}
        method = None if self.method is None else Likelihood(self.method)
        wanted = {"method": method, "guidance": self.guidance, "draws": self.draws, "max_se": self.max_se}
        given = {name: value for name, value in wanted.items() if value is not None}
        chosen = replace(preset.get(task or "", Estimator()), **given)
        return replace(chosen, method=Likelihood.LEFT_TO_RIGHT, guidance=0.0) if self.family is Family.ARM else chosen

    def of_text(self, task: str | None) -> Estimator:
        """The estimator of a task that scores whole texts.

        Raises:
            ValueError: it has guidance, with which a text has no likelihood.
        """
        estimator = self.of(task)
        bound = f"0 for {task}: a perplexity needs a likelihood, and guidance gives none"
        require(estimator.guidance == 0, "guidance", estimator.guidance, bound)
        return estimator
