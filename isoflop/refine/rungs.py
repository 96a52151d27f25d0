"""Rungs: the sizes that continue a sweep's ladder, between its sizes and beyond both ends.

A sweep on SMDM's ladder stays on that ladder. A sweep of `LAYERSxWIDTH` sizes continues by a rule. Between two of its
widths a new size is as deep as its neighbours. Beyond its widest or narrowest size, the ratio of width to depth stays.
"""

import math
from collections.abc import Iterator, Sequence

from isoflop.ladder import SMDM, Size, shape, tiny_sizes
from mdm_jax.spec import ModelSpec, RunSpec
from mdm_jax.spec.counting import count_parameters

SAME_RUNG = 0.03
"""Sizes that are closer in log N are one rung."""
WIDTH_FACTOR = 16
"""New widths reach from 1/16 of the narrowest to 16 times the widest."""


def non_embedding(size: Size) -> int:
    """Non-embedding parameters."""
    return count_parameters(size.model(ModelSpec())).non_embedding


def rungs(runs: Sequence[RunSpec]) -> dict[str, Size]:
    """The ladder of these runs, by name, smallest first. It contains all of their sizes."""
    own = {size.name: size for size in map(size_of, runs)}
    if not own:
        return {}
    on_smdm = [SMDM.get(name) == size for name, size in own.items()]
    pool = list(own.values())
    if any(on_smdm):
        pool += SMDM.values()
    if not all(on_smdm):
        pool += tiny_sizes()
    ends = [non_embedding(size) for size in pool]
    ruled = _by_rule(pool if any(on_smdm) else list(own.values()))
    beyond = (size for size in ruled if not any(on_smdm) or not min(ends) <= non_embedding(size) <= max(ends))
    chosen: dict[str, Size] = {}
    taken: list[float] = []
    for size in (*pool, *beyond):
        log_n = math.log(non_embedding(size))
        if size.name not in chosen and (size.name in own or all(abs(log_n - other) > SAME_RUNG for other in taken)):
            chosen[size.name] = size
            taken.append(log_n)
    return dict(sorted(chosen.items(), key=lambda item: non_embedding(item[1])))


def size_of(run: RunSpec) -> Size:
    """The size of a planned run, with the plan's name for it."""
    model = run.model
    name = run.cell.size or f"{model.n_layers}x{model.d_model}"
    return Size(name, model.n_layers, model.n_heads, model.d_model, model.d_ffn)


def _by_rule(own: Sequence[Size]) -> Iterator[Size]:
    """Sizes LAYERSxWIDTH at every width of a rising series, with the depths of `_depths`."""
    widths = sorted({size.d_model for size in own})
    for width in _widths(widths[0] / WIDTH_FACTOR, widths[-1] * WIDTH_FACTOR):
        for depth in sorted(set(_depths(own, width))):
            yield shape(depth, width)


def _widths(low: float, high: int) -> Iterator[int]:
    """Multiples of 4; of 8 from 32 on; of 16 from 80 on; of 32 from 160 on; and so on, in steps of about a fifth."""
    width = 4
    while width <= min(high, 1 << 14):
        if width >= low:
            yield width
        width += 4 if width < 32 else 8 if width < 80 else 16 << max(0, int(math.log2(width / 80)))


def _depths(own: Sequence[Size], width: int) -> Iterator[int]:
    """Depths of the next narrower and wider sizes; beyond the ends, the depth with the end's width over depth."""
    narrower = [size for size in own if size.d_model <= width]
    wider = [size for size in own if size.d_model >= width]
    for side, edge in ((narrower, max), (wider, min)):
        if not side:
            continue
        nearest = edge(size.d_model for size in side)
        depths = [size.n_layers for size in side if size.d_model == nearest]
        for depth in depths if narrower and wider else [max(depths)]:
            yield depth if narrower and wider else max(1, round(depth * width / nearest))
