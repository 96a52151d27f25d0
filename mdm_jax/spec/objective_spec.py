"""ObjectiveSpec: the training loss of a run, and its name in the run table."""

import functools
from dataclasses import dataclass, field, fields

from mdm_jax.spec.kinds import Cutoff, Family, LevelSampler, NoiseSchedule, Variant, Weighting
from mdm_jax.spec.validation import HASHED_IF_SET, require, to_dict

PARTIAL = (NoiseSchedule.LINEAR, NoiseSchedule.GEOMETRIC)
"""Schedules whose masked share does not run from 0 to 1."""
STEPPED = (Variant.STEPS, Variant.D3PM)
"""Losses over T discrete steps."""
MOST_STEPS = 1 << 20


@dataclass(frozen=True)
class ObjectiveSpec:
    """The training loss.

    The count form is the same for every noise schedule, so it does not read `noise`. All fields change the training
    loss alone: the evaluation always uses the NELBO in its count form.
    """

    variant: Variant = Variant.COUNT
    levels: LevelSampler = LevelSampler.ANTITHETIC
    noise: NoiseSchedule = NoiseSchedule.LOG_LINEAR
    weighting: Weighting = field(default=Weighting.ELBO, metadata=HASHED_IF_SET)
    time_steps: int = field(default=0, metadata=HASHED_IF_SET)
    """T of the forms `steps` and `d3pm`; 0 for the other forms."""
    carry_over: bool = field(default=True, metadata=HASHED_IF_SET)
    """Whether unmasked tokens are copied. `d3pm` without it adds the reconstruction term, a second forward pass."""
    zero_masking: bool = field(default=True, metadata=HASHED_IF_SET)
    """Whether MASK has probability 0 as a prediction. `d3pm` without it needs `model.mask_column`."""
    noise_power: float = field(default=2.0, metadata=HASHED_IF_SET)
    """k of the polynomial schedule, `m = t^k`."""
    cutoff: Cutoff = field(default=Cutoff.NONE, metadata=HASHED_IF_SET)
    cutoff_eps: float = field(default=1e-3, metadata=HASHED_IF_SET)
    """eps of the cutoff; 1e-3 in the code of SMDM and of MDLM."""
    stochastic_length: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Share of the batches that are cut to a length drawn from 1 .. seq_len (SMDM: .01)."""
    drop_prompt: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Share of the pairs whose prompt is MASK in training, for classifier-free guidance (Ho and Salimans 2022)."""

    def __post_init__(self) -> None:
        self._check_levels()
        self._check_only(("weighting",), (Variant.COUNT, Variant.CONTINUOUS, Variant.STEPS))
        self._check_only(("time_steps",), STEPPED)
        self._check_only(("carry_over", "zero_masking"), (Variant.D3PM,))
        self._check_only(("cutoff",), (Variant.CONTINUOUS,))
        if self.variant in STEPPED:
            fits = 2 <= self.time_steps <= MOST_STEPS
            require(fits, "objective.time_steps", self.time_steps, f"from 2 to {MOST_STEPS} for {self.variant.value}")
        whole = self.variant is not Variant.D3PM or self.noise not in PARTIAL
        require(whole, "objective.noise", self.noise.value, "a schedule without masked tokens at time 0 for d3pm")
        self._check_numbers()

    def _check_levels(self) -> None:
        name, given = "objective.levels", self.levels
        plain = self.variant is not Variant.NLL or given is LevelSampler.ANTITHETIC
        require(plain, name, given.value, "antithetic (the default) for the ARM: it has no levels")
        fits = self.variant is Variant.COUNT or given is not LevelSampler.OPTIMAL
        require(fits, name, given.value, "antithetic, iid, shifted or stratified unless variant is count")

    def _check_only(self, names: tuple[str, ...], variants: tuple[Variant, ...]) -> None:
        """Fields that only some forms have: the others keep the default."""
        for name in names:
            default = next(f.default for f in fields(self) if f.name == name)
            value, known = getattr(self, name), ", ".join(variants)
            bound = f"{to_dict(default)} (the default) unless variant is one of {known}"
            require(self.variant in variants or value == default, f"objective.{name}", to_dict(value), bound)

    def _check_numbers(self) -> None:
        polynomial = self.noise is NoiseSchedule.POLYNOMIAL
        fits = 0.25 <= self.noise_power <= 4 if polynomial else self.noise_power == 2
        bound = "from 0.25 to 4" if polynomial else "2 (the default) unless noise is polynomial"
        require(fits, "objective.noise_power", self.noise_power, bound)
        cut = self.cutoff is not Cutoff.NONE
        fits = 0 < self.cutoff_eps < 1 if cut else self.cutoff_eps == 1e-3
        bound = "between 0 and 1, both excluded" if cut else "0.001 (the default) without a cutoff"
        require(fits, "objective.cutoff_eps", self.cutoff_eps, bound)
        fits = 0 <= self.drop_prompt < 1 and (not self.drop_prompt or self.variant is not Variant.NLL)
        require(
            fits, "objective.drop_prompt", self.drop_prompt, "at least 0 and below 1; 0 for the ARM: it has no MASK"
        )
        require(0 <= self.stochastic_length <= 1, "objective.stochastic_length", self.stochastic_length, "from 0 to 1")
        fits = not self.stochastic_length or self.variant is not Variant.COUNT or self.weighting is Weighting.ELBO
        require(fits, "objective.weighting", self.weighting.value, "elbo for counts of rows of stochastic length")

    @property
    def family(self) -> Family:
        return Family.ARM if self.variant is Variant.NLL else Family.MDM

    @property
    def pairs_counts(self) -> bool:
        """Whether the masked tokens of rows 2i and 2i+1 have a constant number, so that the head reads only them."""
        return self.variant is Variant.COUNT and self.levels.pairs_counts

    @property
    def reconstructs(self) -> bool:
        """Whether the loss has a term for the clean tokens, which is a second forward pass."""
        return self.variant is Variant.D3PM and not self.carry_over

    @property
    def label(self) -> str:
        """The run table's `objective_variant`, such as `count`, `continuous/iid/cosine` or `count:bell`.

        Settings after a slash keep the expectation of the loss. Settings after the colon change it.
        """
        same, changes = [self.variant.value], []
        if self.levels is not LevelSampler.ANTITHETIC:
            same.append(self.levels.value)
        if self.variant is not Variant.COUNT and self.noise is not NoiseSchedule.LOG_LINEAR:
            power = f"{self.noise_power:g}" if self.noise is NoiseSchedule.POLYNOMIAL else ""
            (changes if self.noise in PARTIAL else same).append(self.noise.value + power)
        if self.weighting is not Weighting.ELBO:
            changes.append(self.weighting.value)
        if self.time_steps:
            changes.append(f"T{self.time_steps}")
        changes += [f"no_{name}" for name in ("carry_over", "zero_masking") if not getattr(self, name)]
        if self.cutoff is not Cutoff.NONE:
            changes.append(f"cutoff_{self.cutoff.value}{self.cutoff_eps:g}")
        if self.stochastic_length:
            changes.append(f"short{self.stochastic_length:g}")
        if self.drop_prompt:
            changes.append(f"drop_prompt{self.drop_prompt:g}")
        return "/".join(same) + (":" + ",".join(changes) if changes else "")

    @property
    def former_label(self) -> str:
        """The label in tables of earlier versions, which named variant and weighting alone."""
        plain = self.weighting is Weighting.ELBO
        return self.variant.value if plain else f"{self.variant.value}:{self.weighting.value}"


@functools.cache
def evaluated_loss(family: Family) -> ObjectiveSpec:
    """The loss that evaluations report, whatever the training loss was: the NLL, or the NELBO in its count form."""
    return ObjectiveSpec(Variant.NLL) if family is Family.ARM else ObjectiveSpec()
