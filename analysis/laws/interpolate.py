"""Batched interpolation through a family's minima, for many draws at once: log loss as a function of log FLOPs.

The interpolant is the monotone cubic of Fritsch and Carlson (1980) with scipy's PCHIP slopes, over log FLOPs, and it is
inverted for the FLOPs that reach a loss. The axis matters: with a floor, log loss is a gentle function of log FLOPs,
while log FLOPs of log loss has a pole at the floor. A frontier is the least compute that reached a loss, so minima that
a cheaper budget equals or beats are left out, among the measured points and in every draw. docs/analysis.md has the
measurements by which this interpolant was chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.laws.law import Law

LINEAR, CUBIC = "linear", "cubic"
LEAST_END = 0.5
"""The curve goes on at least this steeply beyond a draw's last minimum, in units of the last segment's own slope. Noise
may level its end, and a level line never reaches a loss."""
STEPS, CLOSE = 40, 1e-9
"""The inversion takes at most so many steps, of bisection or Newton's, and ends when a step moves less than this share
of a segment. scipy's batched `find_root` took three times as long (.94 s against .33 s for 4000 draws at 61 losses)."""


@dataclass(frozen=True, eq=False)
class Interpolation(Law):
    """n draws of the curve through a family's minima; a draw with fewer than two minima that count gives nan."""

    log_c: np.ndarray
    """Log FLOPs of the minima, [n, B]; nan where the draw lost one."""
    log_l: np.ndarray
    """Their log loss, [n, B]."""
    kind: str = CUBIC
    """"cubic" or "linear"."""

    @property
    def support(self) -> tuple[float, float]:
        """The measured range of log losses: the lowest of the first draw's minima, and that of its cheapest minimum."""
        return float(np.nanmin(self.log_l[0])), float(self.log_l[0, np.nanargmin(self.log_c[0])])

    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log loss [n, G] at log FLOPs, [G] or [n, G]."""
        return self._read(_Curve.log_loss, log_flops)

    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log FLOPs [n, G] that reach a log loss, [G] or [n, G]."""
        return self._read(_Curve.log_flops, log_loss)

    def _read(self, read: Callable[["_Curve", np.ndarray], np.ndarray], places: np.ndarray) -> np.ndarray:
        """`read` on the minima that count, for all draws at once that share which these are."""
        places = np.broadcast_to(places, (len(self.log_c), np.shape(places)[-1]))
        out = np.full(places.shape, np.nan)
        order = np.argsort(self.log_c, axis=1, kind="stable")  # nan last
        x, y = np.take_along_axis(self.log_c, order, 1), np.take_along_axis(self.log_l, order, 1)
        patterns, member = np.unique(unbeaten(x, y), axis=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            if pattern.sum() >= 2:
                rows = np.flatnonzero(member.ravel() == index)
                out[rows] = read(_Curve(x[rows][:, pattern], y[rows][:, pattern], self.kind), places[rows])
        return out


def unbeaten(log_c: np.ndarray, log_l: np.ndarray) -> np.ndarray:
    """Whether each minimum lies below all cheaper ones, [n, B]; log_c rises along a row, nan marks a lost minimum."""
    known = np.isfinite(log_c) & np.isfinite(log_l)
    loss = np.where(known, log_l, np.inf)
    cheaper = np.minimum.accumulate(loss, axis=1)
    return known & np.concatenate([known[:, :1], loss[:, 1:] < cheaper[:, :-1]], axis=1)


class _Curve:
    """n falling curves through k points each: x rises, y falls."""

    def __init__(self, x: np.ndarray, y: np.ndarray, kind: str) -> None:
        self.x, self.y = x, y
        self.h = np.maximum(np.diff(x, axis=1), 1e-12)
        self.chord = np.diff(y, axis=1) / self.h
        straight = kind == LINEAR or x.shape[1] == 2
        self.slope = None if straight else _slopes(self.h, self.chord)
        ends = self.chord[:, [0, -1]]
        own = ends if self.slope is None else self.slope[:, [0, -1]]
        self.ends = np.minimum(own, LEAST_END * ends)

    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log loss [n, G] at log FLOPs [n, G]; beyond the ends the curve is straight."""
        left = _segment(log_flops, self.x)
        s = (log_flops - _at(self.x, left)) / _at(self.h, left)
        y, _ = self._in_segment(np.clip(s, 0.0, 1.0), left)
        before, after = np.minimum(log_flops - self.x[:, :1], 0.0), np.maximum(log_flops - self.x[:, -1:], 0.0)
        return y + before * self.ends[:, :1] + after * self.ends[:, 1:]

    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log FLOPs [n, G] at log losses [n, G]: Newton's steps from the chord, within a bracket that shrinks."""
        left = _segment(-log_loss, -self.y)
        held = np.clip(log_loss, self.y[:, -1:], self.y[:, :1])
        y0, y1 = _at(self.y, left), _at(self.y, left + 1)
        low, high = np.zeros_like(held), np.ones_like(held)
        s = (held - y0) / (y1 - y0)
        for _ in range(STEPS if self.slope is not None else 0):
            y, dy = self._in_segment(s, left)
            low, high = np.where(y > held, s, low), np.where(y > held, high, s)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = s - (y - held) / dy
            moved = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
            moved = np.where(y == held, s, moved)
            done = np.abs(moved - s).max(initial=0.0) < CLOSE
            s = moved
            if done:
                break
        x = _at(self.x, left) + s * _at(self.h, left)
        above, below = np.maximum(log_loss - self.y[:, :1], 0.0), np.minimum(log_loss - self.y[:, -1:], 0.0)
        return x + above / self.ends[:, :1] + below / self.ends[:, 1:]

    def _in_segment(self, s: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y, and its derivative by s, at the share s of the segments `left`, [n, G] each."""
        y0, y1, h = _at(self.y, left), _at(self.y, left + 1), _at(self.h, left)
        if self.slope is None:
            return y0 + s * (y1 - y0), np.broadcast_to(y1 - y0, s.shape)
        m0, m1 = h * _at(self.slope, left), h * _at(self.slope, left + 1)
        c2, c3 = 3 * (y1 - y0) - 2 * m0 - m1, m0 + m1 - 2 * (y1 - y0)
        return y0 + s * (m0 + s * (c2 + s * c3)), m0 + s * (2 * c2 + 3 * s * c3)


def _segment(places: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """The segment [n, G] that each place lies in, by rising knots [n, k]; the first or last beyond them."""
    return np.clip((knots[:, None, 1:-1] <= places[:, :, None]).sum(2), 0, knots.shape[1] - 2)


def _at(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, segments, axis=1)


def _slopes(h: np.ndarray, chord: np.ndarray) -> np.ndarray:
    """Derivatives [n, k] at the knots that keep the cubic monotone; the chords all fall."""
    w0, w1 = 2 * h[:, 1:] + h[:, :-1], h[:, 1:] + 2 * h[:, :-1]
    inner = (w0 + w1) / (w0 / chord[:, :-1] + w1 / chord[:, 1:])
    first = _end_slope(h[:, 0], h[:, 1], chord[:, 0], chord[:, 1])
    last = _end_slope(h[:, -1], h[:, -2], chord[:, -1], chord[:, -2])
    return np.concatenate([first[:, None], inner, last[:, None]], axis=1)


def _end_slope(h0: np.ndarray, h1: np.ndarray, d0: np.ndarray, d1: np.ndarray) -> np.ndarray:
    """Three-point derivative at an end, 0 where it would turn.

    With d0, d1 < 0 it is no steeper than (2 h0 + h1) / (h0 + h1) < 2 times d0, which keeps the cubic monotone.
    """
    return np.minimum(((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1), 0.0)
