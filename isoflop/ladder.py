"""Model sizes by name: SMDM's 30, a fine ladder of tiny sizes for CPUs, any `LAYERSxWIDTH`, and a rule for any range.

Source of `SMDM`: Scaling up Masked Diffusion Models on Text (Nie et al. 2024), Table 5. Its names are millions of
non-embedding parameters. The tiny sizes keep SMDM's shape (ffn = 4 d, untied head) at 8 thousand to 2 million
non-embedding parameters.
"""

import bisect
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mdm_jax.spec import ModelSpec
from mdm_jax.spec.counting import count_parameters
from mdm_jax.spec.validation import require


@dataclass(frozen=True)
class Size:
    """The shape of a model, by name. A sweep's `own_sizes` are shapes that no rule gives, under names of your own."""

    name: str
    n_layers: int
    n_heads: int
    d_model: int
    d_ffn: int

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "own_sizes.name", self.name, "a name")
        self.model(ModelSpec())  # ModelSpec checks the bounds

    def model(self, template: ModelSpec) -> ModelSpec:
        """The template in this shape; vocabulary, attention and dtype stay."""
        return replace(template, n_layers=self.n_layers, n_heads=self.n_heads, d_model=self.d_model, d_ffn=self.d_ffn)


def _smdm(rows: dict[str, tuple[int, int, int]]) -> dict[str, Size]:
    """Sizes of the rows (layers, heads, d_model). Only size 75 has another ffn than 4 d."""
    return {n: Size(n, la, h, d, 1600 if n == "75" else 4 * d) for n, (la, h, d) in rows.items()}


SMDM = _smdm(
    {
        "6": (6, 4, 256),
        "19": (8, 6, 384),
        "34": (8, 8, 512),
        "48": (9, 9, 576),
        "66": (10, 10, 640),
        "75": (16, 8, 640),
        "85": (13, 10, 640),
        "113": (12, 12, 768),
        "142": (15, 12, 768),
        "170": (18, 12, 768),
        "180": (14, 14, 896),
        "206": (16, 14, 896),
        "231": (18, 14, 896),
        "268": (16, 16, 1024),
        "302": (18, 16, 1024),
        "336": (20, 16, 1024),
        "472": (18, 10, 1280),
        "551": (21, 10, 1280),
        "571": (18, 11, 1408),
        "629": (24, 10, 1280),
        "666": (21, 11, 1408),
        "717": (19, 12, 1536),
        "761": (24, 11, 1408),
        "831": (22, 12, 1536),
        "944": (25, 12, 1536),
        "1028": (20, 14, 1792),
        "1233": (24, 14, 1792),
        "1476": (22, 16, 2048),
        "1678": (25, 16, 2048),
        "2121": (28, 17, 2176),
    }
)

TINY_WIDTHS = (*range(16, 32, 4), *range(32, 80, 8), *range(80, 161, 16))


def tiny_sizes() -> tuple[Size, ...]:
    """The ladder for CPUs, smallest first. Depth is d / 32, at least 2; where that ends in .5, both neighbours occur.

    Non-embedding parameters run from 8 thousand to 2 million, a factor 1.3 to 1.6 from one size to the next.
    """
    depths = ((d, max(2, n)) for d in TINY_WIDTHS for n in sorted({(d + 15) // 32, (d + 16) // 32}))
    return tuple(shape(n, d) for d, n in dict.fromkeys(depths))


def shape(n_layers: int, d_model: int) -> Size:
    """The size `LAYERSxWIDTH` by rule: ffn = 4 d, at least two heads of about 32 channels (64 from width 256 on).

    Raises:
        ValueError: the width is no multiple of 4 (two heads, and RoPE rotates pairs), or out of ModelSpec's bounds.
    """
    name = f"{n_layers}x{d_model}"
    require(d_model % 4 == 0 and d_model > 0, f"size {name}: width", d_model, "a multiple of 4")
    wanted = d_model / (64 if d_model >= 256 else 32)
    heads = (h for h in range(2, min(d_model // 2, 1024) + 1) if d_model % (2 * h) == 0)
    return Size(name, n_layers, min(heads, key=lambda h: abs(h - wanted)), d_model, 4 * d_model)


MOST_SIZES = 1000
CLOSE_LOG_N, FAR_LOG_N = 0.02, 0.4
"""Sizes within CLOSE_LOG_N of a target are equally good, and the shape decides. No size may be FAR_LOG_N away."""


def ladder_between(n_min: float, n_max: float, ratio: float = 1.5) -> tuple[Size, ...]:
    """Sizes `LAYERSxWIDTH` from n_min to n_max non-embedding parameters, each about `ratio` times the one before.

    Depth follows from width: d / depth is 2 sqrt(d), at least 32 (as in the tiny ladder) and at most 80. That is near
    SMDM's sizes (43 at width 256, 55 at 768, 80 at 2048). The depth may be a quarter off this rule, to meet the target
    better. Where shapes are sparse, as below 10 thousand parameters, steps are uneven and some are left out.

    Raises:
        ValueError: invalid bounds, an invalid ratio, or a range without any size.
    """
    require(0 < n_min <= n_max < 1e13, "ladder_between", (n_min, n_max), "0 < n_min <= n_max < 1e13 parameters")
    require(ratio > 1, "ladder_between: ratio", ratio, "above 1, such as 1.5")
    steps = round(math.log(n_max / n_min) / math.log(ratio))
    require(steps < MOST_SIZES, "ladder_between: ratio", ratio, f"so large that there are at most {MOST_SIZES} sizes")
    shapes = sorted(_shapes_by_rule(math.log(n_min) - FAR_LOG_N, math.log(n_max) + FAR_LOG_N))
    chosen: list[tuple[float, int, int]] = []
    for i in range(steps + 1):
        target = math.log(n_min) + i * math.log(n_max / n_min) / max(steps, 1)
        low, high = (bisect.bisect(shapes, (target + far, 0, 0)) for far in (-FAR_LOG_N, FAR_LOG_N))
        near = shapes[low:high]
        require(bool(near), "ladder_between", math.exp(target), "a size that some LAYERSxWIDTH has")
        best = min(near, key=lambda found: (max(abs(found[0] - target), CLOSE_LOG_N), _off_rule(found[1], found[2])))
        if not chosen or best[0] - chosen[-1][0] > math.log(ratio) / 2:
            chosen.append(best)
    return tuple(shape(n_layers, d_model) for _, n_layers, d_model in chosen)


def _shapes_by_rule(low: float, high: float) -> Iterator[tuple[float, int, int]]:
    """(log N, depth, width) of shapes from `low` to `high` in log N, with depths at most a quarter off the rule."""
    widths = (range(8, 64, 4), range(64, 128, 8), range(128, 256, 16), range(256, 1024, 64), range(1024, 1 << 15, 128))
    for d_model in itertools.chain(*widths):
        depth = d_model / _width_over_depth(d_model)
        for n_layers in range(max(1, round(0.75 * depth)), max(1, round(1.25 * depth)) + 1):
            without_norms = math.log(16 * n_layers * d_model**2)
            if not low - 0.2 <= without_norms <= high + 0.2:  # saves the exact count
                continue
            model = ModelSpec(n_layers=n_layers, d_model=d_model, n_heads=1, d_ffn=4 * d_model)
            log_n = math.log(count_parameters(model).non_embedding)
            if low <= log_n <= high:
                yield log_n, n_layers, d_model


def _width_over_depth(d_model: int) -> float:
    """The rule of `ladder_between`."""
    return min(max(2 * math.sqrt(d_model), 32.0), 80.0)


def _off_rule(n_layers: int, d_model: int) -> float:
    """Distance of a shape from the rule, in log depth."""
    return abs(math.log(n_layers * _width_over_depth(d_model) / d_model))


def find_size(name: str, own: Iterable[Size] = ()) -> Size:
    """The size of that name: one of `own`, one of SMDM's (`170`), or `LAYERSxWIDTH` (`2x64`).

    Raises:
        ValueError: no such size; the known ones are listed.
    """
    owned = {size.name: size for size in own}
    known = owned | SMDM | owned  # own sizes come first, and replace SMDM's of the same name
    if name in known:
        return known[name]
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,4})", name)
    if match:
        return shape(int(match[1]), int(match[2]))
    raise ValueError(f"size {name!r}: must be LAYERSxWIDTH, such as 2x64, or one of {', '.join(known)}")
