"""The settings of a report: each model with each of its samplers and numbers of steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdm_jax.command import comma_list
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.samplers import KINDS, Sampler
from mdm_jax.spec import Family
from mdm_jax.spec.validation import build, require

ALL = "all"
STEPS = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Setting:
    """One way in which one model writes.

    Attributes:
        model: the model's label.
        family: its family.
        options: the sampler and its settings, complete for the family.
    """

    model: str
    family: Family
    options: SamplingOptions

    @property
    def sampler(self) -> str:
        """The sampler with what is not at its default, steps left out: `confidence:block=32`."""
        return self._without("steps")

    @property
    def curve(self) -> str:
        """The sampler without what leads from few forward passes to many: its steps, or else its bound."""
        return self._without("steps") if self.options.kind.counts_steps else self._without("steps", "bound")

    def _without(self, *names: str) -> str:
        default, own = SamplingOptions(self.options.sampler), self.options
        others = [f.name for f in dataclasses.fields(SamplingOptions) if f.name not in ("sampler", *names)]
        changed = {name: getattr(own, name) for name in others if getattr(own, name) != getattr(default, name)}
        each = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in changed.items()]
        return ":".join([str(own.sampler), *filter(None, [",".join(each)])])

    @property
    def name(self) -> str:
        """The model, the sampler and the steps, in characters that a file's name may have."""
        steps = [] if self.options.steps is None else [str(self.options.steps)]
        text = "-".join([self.model, self.sampler, *steps])
        return "".join(c if c.isalnum() or c in "-._=" else "_" for c in text)


def parse_sampler(text: str) -> dict[str, Any]:
    """The options that `NAME` or `NAME:KEY=VALUE,KEY=VALUE` stands for.

    Raises:
        ValueError: there is no such sampler (those known are listed), or a part is not `KEY=VALUE`.
    """
    name, _, rest = text.partition(":")
    require(name in list(Sampler), "--samplers", name, f"{ALL}, or of {', '.join(Sampler)}")
    options = dict[str, Any](sampler=name)
    for item in comma_list(rest):
        key, mark, value = (part.strip() for part in item.partition("="))
        bound = "KEY=VALUE, such as threshold:bound=0.8 or confidence:block=32"
        require(bool(key and mark and value) and key not in ("sampler", "steps"), f"--samplers {name}", item, bound)
        options[key] = _number_or_text(value)
    return options


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def mdm_settings(
    model: str, samplers: Sequence[str], steps: Sequence[int] | None, common: Mapping[str, Any], tokens: int
) -> list[Setting]:
    """The settings of an MDM: each sampler with each number of steps that it can take.

    Args:
        model: the model's label.
        samplers: see `parse_sampler`; `all` stands for each sampler at its default.
        steps: numbers of steps; None takes those of `STEPS` that are no more than the tokens.
        common: options of all samplers. What a sampler sets itself goes before.
        tokens: new tokens of each text.

    Raises:
        ValueError: an option is unknown or out of range, or a number of steps is one that a sampler cannot take.
    """
    chosen = [name for text in samplers for name in (list(Sampler) if text == ALL else [text])]
    counts = steps if steps is not None else [count for count in STEPS if count <= tokens]
    found = list[Setting]()
    for text in chosen:
        given = {**common, **parse_sampler(text)}
        counted = KINDS[Sampler(given["sampler"])].counts_steps
        for count in counts if counted else [None]:
            options = build(SamplingOptions, given | ({} if count is None else {"steps": count})).of(Family.MDM)
            options.steps_of(tokens, f"--steps, {options.sampler}")
            found.append(Setting(model, Family.MDM, options))
    return list(dict.fromkeys(found))


def arm_settings(model: str, common: Mapping[str, Any]) -> list[Setting]:
    """The one setting of an ARM: from left to right, with its cache.

    Raises:
        ValueError: an option is out of range.
    """
    given = {name: value for name, value in common.items() if name in ("temperature", "top_k", "top_p")}
    return [Setting(model, Family.ARM, build(SamplingOptions, given).of(Family.ARM))]
