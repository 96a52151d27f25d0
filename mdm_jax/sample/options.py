"""What a user chooses about sampling, and whether a family of models has it."""

import math
from dataclasses import dataclass, replace

from mdm_jax.sample.samplers import KINDS, Kind, Sampler
from mdm_jax.sample.trunk_cache import TrunkCache
from mdm_jax.spec import Family
from mdm_jax.spec.validation import require

MOST_STEPS = 1 << 20


@dataclass(frozen=True)
class SamplingOptions:
    """How rows are sampled.

    Attributes:
        sampler: see `mdm_jax.sample.samplers`; empty for `first_hitting` (MDM) or `ancestral` (ARM).
        steps: steps of each row; None for one a token. The number is no choice for samplers whose text decides it.
        block: tokens of a block, filled from left to right; None for the whole row.
        bound: the number that the sampler depends on; None for the sampler's default.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only so many of the likeliest tokens are drawn; 0 for all.
        top_p: only the likeliest tokens that together have this probability are drawn.
        guidance: w of unsupervised classifier-free guidance.
        cache: keys and values that an MDM keeps within a block, `prefix` or `dual`; see `mdm_jax.sample.trunk_cache`.
            Empty or `none` keeps nothing. An ARM always keeps its own.

    Raises:
        ValueError: the sampler is unknown, or a number is out of range or not one of the sampler.
    """

    sampler: str = ""
    steps: int | None = None
    block: int | None = None
    bound: float | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 0.0
    cache: str = ""

    def __post_init__(self) -> None:
        require(self.sampler in ("", *Sampler), "sampler", str(self.sampler), f"one of {', '.join(Sampler)}")
        require(self.steps is None or 1 <= self.steps <= MOST_STEPS, "steps", self.steps, f"from 1 to {MOST_STEPS}")
        require(self.block is None or 1 <= self.block < 1 << 31, "block", self.block, "1 token or more")
        require(0 <= self.temperature <= 1e6, "temperature", self.temperature, "from 0 to 1e6")
        require(0 <= self.top_k < 1 << 31, "top_k", self.top_k, "0 for all tokens, or their number")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1")
        require(math.isfinite(self.guidance), "guidance", self.guidance, "finite")
        require(self.cache in ("", *TrunkCache), "cache", str(self.cache), f"one of {', '.join(TrunkCache)}")
        if self.sampler:
            self._check_kind(KINDS[Sampler(self.sampler)])

    def _check_kind(self, kind: Kind) -> None:
        if self.bound is not None:
            bound = f"from 0 to {kind.most:g}: {kind.meaning}" if kind.meaning else f"absent for {self.sampler}"
            fits = kind.bound is not None and 0 <= self.bound <= kind.most
            require(fits, "bound", self.bound, bound)
        absent = f"absent for {self.sampler}: the number of steps follows from the text"
        require(self.steps is None or kind.counts_steps, "steps", self.steps, absent)

    def of(self, family: Family) -> "SamplingOptions":
        """The options with the family's own sampler in place of an empty one.

        Raises:
            ValueError: the family has no such sampler, an ARM is to have what only an MDM has, or a cache is to be used
                without blocks.
        """
        if family is Family.MDM:
            bound = "the tokens of a block: a cache keeps what is outside of the present block"
            require(self.trunk_cache is TrunkCache.NONE or self.block is not None, "block", self.block, bound)
            return self if self.sampler else replace(self, sampler=Sampler.FIRST_HITTING)
        bound = "ancestral for an ARM, which writes from left to right"
        require(self.sampler in ("", Sampler.ANCESTRAL), "sampler", str(self.sampler), bound)
        for name in ("steps", "block", "bound"):
            value = getattr(self, name)
            require(value is None, name, value, "absent for an ARM, which writes a token a step")
        bound = "0 for an ARM: it has no MASK to hide the prompt with"
        require(self.guidance == 0, "guidance", self.guidance, bound)
        bound = "absent for an ARM, which always keeps its keys and values"
        require(not self.cache, "cache", str(self.cache), bound)
        return self if self.sampler else replace(self, sampler=Sampler.ANCESTRAL)

    @property
    def trunk_cache(self) -> TrunkCache:
        """The chosen cache of an MDM."""
        return TrunkCache(self.cache or TrunkCache.NONE)

    @property
    def kind(self) -> Kind:
        """The chosen sampler."""
        return KINDS[Sampler(self.sampler)]

    def steps_of(self, tokens: int, name: str) -> int:
        """The steps of a row of which so many tokens are generated.

        Raises:
            ValueError: there are more steps than tokens, or fewer than blocks; `name` names the row.
        """
        if self.steps is None:
            return tokens
        blocks = -(-tokens // (self.block or tokens))
        require(self.steps >= blocks, f"{name}: steps", self.steps, f"at least {blocks}, one for each block")
        bound = f"at most {tokens}, the tokens to generate (ancestral and the remask samplers take more)"
        require(self.steps <= tokens or self.kind.repeats, f"{name}: steps", self.steps, bound)
        return self.steps
