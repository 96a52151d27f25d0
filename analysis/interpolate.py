"""Batched interpolation through a family's minima: log FLOPs as a function of log loss, for many draws at once.

The interpolant is the monotone cubic of Fritsch and Carlson (1980) with the end slopes of scipy's PCHIP. Straight
segments between budgets a factor 4 to 10 apart lie above a curve with a floor: in simulated sweeps they biased the gap
by 1 to 3%, enough that at a noise of .003 nats the 95% interval covered the truth in 2 to 92% of them, the cubic's in
94 to 98%.
"""

import numpy as np

LINEAR, CUBIC = "linear", "cubic"


def invert(log_c: np.ndarray, log_l: np.ndarray, targets: np.ndarray, kind: str = CUBIC) -> np.ndarray:
    """Log FLOPs [n, G] at log losses `targets` [G]; beyond a draw's knots the end slope continues.

    Args:
        log_c: [n, B] log FLOPs of the minima; nan where the draw lost one.
        log_l: [n, B] their log loss.
        targets: [G] log loss.
        kind: "cubic" or "linear".
    """
    out = np.full((len(log_c), len(targets)), np.nan)
    known = np.isfinite(log_c) & np.isfinite(log_l)
    patterns, member = np.unique(known, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if pattern.sum() >= 2:
            rows = np.flatnonzero(member.ravel() == index)
            out[rows] = _invert_full(log_c[rows][:, pattern], log_l[rows][:, pattern], targets, kind)
    return out


def _invert_full(log_c: np.ndarray, log_l: np.ndarray, targets: np.ndarray, kind: str) -> np.ndarray:
    order = np.argsort(log_l, axis=1, kind="stable")
    x = np.take_along_axis(log_l, order, 1)
    y = np.take_along_axis(log_c, order, 1)
    h = np.maximum(np.diff(x, axis=1), 1e-12)
    chord = np.diff(y, axis=1) / h
    straight = kind == LINEAR or x.shape[1] == 2
    slope = np.concatenate([chord, chord[:, -1:]], axis=1) if straight else _slopes(h, chord)
    left = np.clip((x[:, None, 1:-1] <= targets[None, :, None]).sum(2), 0, x.shape[1] - 2)

    def at(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, where, axis=1)

    x0, y0, step = at(x, left), at(y, left), at(h, left)
    s = (targets[None, :] - x0) / step
    if straight:
        return y0 + s * step * at(chord, left)
    y1, m0, m1 = at(y, left + 1), at(slope, left), at(slope, left + 1)
    inside = (
        y0 * (1 + 2 * s) * (1 - s) ** 2 + m0 * step * s * (1 - s) ** 2
        + y1 * s**2 * (3 - 2 * s) + m1 * step * s**2 * (s - 1)
    )  # fmt: skip
    return np.where(s < 0, y0 + m0 * s * step, np.where(s > 1, y1 + m1 * (s - 1) * step, inside))


def _slopes(h: np.ndarray, chord: np.ndarray) -> np.ndarray:
    """Derivatives [n, B] at the knots that keep the cubic monotone between monotone points."""
    w0, w1 = 2 * h[:, 1:] + h[:, :-1], h[:, 1:] + 2 * h[:, :-1]
    same = chord[:, 1:] * chord[:, :-1] > 0
    left, right = np.where(same, chord[:, :-1], 1.0), np.where(same, chord[:, 1:], 1.0)
    inner = np.where(same, (w0 + w1) / (w0 / left + w1 / right), 0.0)
    first = _end_slope(h[:, 0], h[:, 1], chord[:, 0], chord[:, 1])
    last = _end_slope(h[:, -1], h[:, -2], chord[:, -1], chord[:, -2])
    return np.concatenate([first[:, None], inner, last[:, None]], axis=1)


def _end_slope(h0: np.ndarray, h1: np.ndarray, d0: np.ndarray, d1: np.ndarray) -> np.ndarray:
    """Three-point derivative at an end, limited so that it keeps the end segment's direction."""
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    slope = np.where(np.sign(slope) == np.sign(d0), slope, 0.0)
    steep = (np.sign(d0) != np.sign(d1)) & (np.abs(slope) > 3 * np.abs(d0))
    return np.where(steep, 3 * d0, slope)
