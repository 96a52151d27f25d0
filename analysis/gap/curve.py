"""The compute gap: how many times the FLOPs of the ARM the MDM needs for the same loss.

The ratio is read off in several ways. `interpolated` (the default) goes through both families' minima by a monotone
cubic and exists only where both were measured: it assumes no law. `piecewise_linear` is the same with straight
segments, for comparison with readings made by ruler. `power_law` is the published way (SMDM): two straight lines in
log-log, right where there is no floor and silent about it where there is. `shared_floor` lets both laws saturate at
one fitted floor, `own_floors` each at its own, `given_floor` both at a stated one.

Outside the losses that both families reached, a ratio is an extrapolation of at least one law, and `support` says so.
"""

from dataclasses import dataclass

import numpy as np

from analysis.bootstrap import Bootstrap, lines
from analysis.frontier import Frontier, overlap
from analysis.interpolate import CUBIC, LINEAR, invert
from analysis.power_law import floor_at_bound, floor_line, profile_floor

LAWS = ("interpolated", "piecewise_linear", "power_law", "shared_floor", "own_floors", "given_floor")
INTERPOLATING = {"interpolated": CUBIC, "piecewise_linear": LINEAR}
INTERPOLATED, EXTRAPOLATED = "interpolated", "extrapolated"
GRID_POINTS = 61
Draws = tuple[np.ndarray, np.ndarray]
"""(log FLOPs, log loss), [n, B] each."""
Floors = tuple[np.ndarray, np.ndarray] | None
"""The ARM's and the MDM's floor of every draw, nats per token, [n] each; None for laws without one."""
ROLES = ("arm", "mdm")


@dataclass(frozen=True, eq=False)
class GapCurve:
    """Compute ratio MDM / ARM at equal loss, [G] each; nan where the law says nothing."""

    at: str
    law: str
    convention: str
    level: float
    loss: np.ndarray
    """nats per token."""
    flops_arm: np.ndarray
    flops_mdm: np.ndarray
    ratio: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    """Percentile interval of the draws; nan without draws, 0 or inf where too many draws are unknown."""
    support: np.ndarray
    """"interpolated" where both families' minima reach the loss, else "extrapolated"."""
    unknown: np.ndarray
    """Share of draws that give no ratio; half of them count below, half above."""
    overlap: tuple[float, float] | None
    floor: float
    """The floor of both families, nats per token; nan where they have none or differ."""
    floor_at_bound: bool
    """A fitted floor ran to an end of its range: the data do not determine it."""
    floors: tuple[float, float] = (float("nan"), float("nan"))
    """The ARM's and the MDM's."""


def compute_gap(
    arm: Frontier,
    mdm: Frontier,
    at: str = "loss",
    law: str = "interpolated",
    grid: np.ndarray | None = None,
    draws: Bootstrap | None = None,
    level: float = 0.95,
    floor: float | None = None,
) -> GapCurve:
    """Ratio of compute, C_MDM / C_ARM, at equal loss.

    Args:
        arm: the ARM's minima, `fit.frontier("arm", convention)`.
        mdm: the MDM's, under the same convention.
        at: what `grid` holds: "loss" (nats per token) or "flops" (the ARM's FLOPs, read at the loss it reaches there).
        law: a member of LAWS.
        grid: where to evaluate, [G]; by default the overlap of the loss ranges, for laws the union of them.
        draws: bootstrap of the fit that the minima come from; gives the interval.
        level: of the interval.
        floor: nats per token, for law="given_floor".

    Raises:
        ValueError: an unknown `at` or law, conventions that differ, fewer than two minima a family, no overlap to
            interpolate in, or a floor that is missing, superfluous or not below every loss.
    """
    _check(arm, mdm, at, law, level)
    _check_floor(arm, mdm, law, floor)
    shared = overlap(arm, mdm)
    if law in INTERPOLATING and shared is None:
        raise ValueError(
            f"the loss ranges do not overlap (arm {_span(arm)}, mdm {_span(mdm)}): nothing can be interpolated; "
            "add larger MDM or smaller ARM budgets, or read an extrapolation with law='power_law'"
        )
    pairs = {"arm": _rows(arm), "mdm": _rows(mdm)}
    floors = _floors(pairs, law, floor)
    log_l = _log_losses(at, law, grid, arm, mdm, shared, pairs, floors)
    log_arm, log_mdm = _log_flops(pairs, log_l, law, floors)
    inside = np.zeros(len(log_l), bool)
    if shared is not None:
        inside = (log_l >= np.log(shared[0]) - 1e-12) & (log_l <= np.log(shared[1]) + 1e-12)
    hidden = ~inside if law in INTERPOLATING else np.zeros(len(log_l), bool)
    log_arm, log_mdm = np.where(hidden, np.nan, log_arm[0]), np.where(hidden, np.nan, log_mdm[0])
    lower, upper, unknown = _interval(draws, (arm, mdm), log_l, law, level, floor)
    own = (float("nan"), float("nan")) if floors is None else (float(floors[0][0]), float(floors[1][0]))
    lowest = _lowest(arm, mdm, law)
    bound = floor is None and any(floor_at_bound(f, low) for f, low in zip(own, lowest, strict=True))
    return GapCurve(
        at, law, arm.convention, level, np.exp(log_l), np.exp(log_arm), np.exp(log_mdm), np.exp(log_mdm - log_arm),
        np.where(hidden, np.nan, lower), np.where(hidden, np.nan, upper),
        np.where(inside, INTERPOLATED, EXTRAPOLATED), unknown, shared,
        own[0] if own[0] == own[1] else float("nan"), bool(bound), own,
    )  # fmt: skip


def middle_of_overlap(arm: Frontier, mdm: Frontier) -> float | None:
    """The headline's loss, nats per token: the middle, in log loss, of what both families reached; None if nothing."""
    shared = overlap(arm, mdm)
    return None if shared is None else float(np.sqrt(shared[0] * shared[1]))


def _check(arm: Frontier, mdm: Frontier, at: str, law: str, level: float) -> None:
    if at not in ("loss", "flops"):
        raise ValueError(f"at = {at!r}: must be 'loss' or 'flops'")
    if law not in LAWS:
        raise ValueError(f"law = {law!r}: must be one of {', '.join(LAWS)}")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must be between 0 and 1")
    if arm.convention != mdm.convention:
        raise ValueError(f"convention: arm counts {arm.convention}, mdm {mdm.convention}; they must be the same")
    for side in (arm, mdm):
        if len(side.loss) < 2:
            raise ValueError(f"{side.family}: {len(side.loss)} usable minima, a gap needs two; add budgets or sizes")
    if law == "shared_floor" and len(arm.loss) + len(mdm.loss) < 5:
        raise ValueError("law = 'shared_floor': has five parameters, so it needs five minima in all")


def _check_floor(arm: Frontier, mdm: Frontier, law: str, floor: float | None) -> None:
    if law == "own_floors" and min(len(arm.loss), len(mdm.loss)) < 3:
        raise ValueError("law = 'own_floors': has three parameters a family, so it needs three minima of each")
    if (law == "given_floor") != (floor is not None):
        raise ValueError(f"floor = {floor}: must be given with law='given_floor', and only with it (law is {law!r})")
    lowest = min(arm.loss_range[0], mdm.loss_range[0])
    if floor is not None and not 0 <= floor < lowest:
        raise ValueError(f"floor = {floor}: must be from 0 to below the lowest loss, {lowest:.4g}")


def _lowest(arm: Frontier, mdm: Frontier, law: str) -> tuple[float, float]:
    """The loss that bounds each family's floor from above."""
    lows = arm.loss_range[0], mdm.loss_range[0]
    return lows if law == "own_floors" else (min(lows), min(lows))


def _span(side: Frontier) -> str:
    return f"{side.loss_range[0]:.4g} to {side.loss_range[1]:.4g}"


def _rows(side: Frontier) -> Draws:
    return np.log(side.flops)[None], np.log(side.loss)[None]


def _floors(pairs: dict[str, Draws], law: str, given: float | None, zooms: int = 6) -> Floors:
    if law == "given_floor":
        assert given is not None
        return np.full(len(pairs["arm"][0]), given), np.full(len(pairs["mdm"][0]), given)
    if law == "own_floors":
        arm, mdm = (profile_floor([pairs[role][0]], [pairs[role][1]], zooms=zooms) for role in ROLES)
        return arm, mdm
    if law == "shared_floor":
        log_c, log_l = ([pairs[role][i] for role in ROLES] for i in (0, 1))
        shared = profile_floor(log_c, log_l, zooms=zooms)
        return shared, shared
    return None


def _log_losses(
    at: str, law: str, grid: np.ndarray | None, arm: Frontier, mdm: Frontier, shared: tuple[float, float] | None,
    pairs: dict[str, Draws], floors: Floors,
) -> np.ndarray:  # fmt: skip
    """Log losses [G] of the grid."""
    if grid is not None:
        given = np.asarray(grid, np.float64)
        if given.ndim != 1 or not len(given) or not (np.isfinite(given).all() and (given > 0).all()):
            raise ValueError("grid: must be a list of finite positive numbers")
        return np.log(given) if at == "loss" else _arm_log_loss(np.log(given), law, pairs, floors)
    if law in INTERPOLATING and shared is not None:
        low, high = shared
    else:
        low, high = (pick(arm.loss_range[i], mdm.loss_range[i]) for i, pick in enumerate((min, max)))
    if at == "loss":
        return np.linspace(np.log(low), np.log(high), GRID_POINTS)
    ends, _ = _log_flops(pairs, np.log([high, low]), law, floors)
    return _arm_log_loss(np.linspace(ends[0, 0], ends[0, 1], GRID_POINTS), law, pairs, floors)


def _arm_log_loss(log_c: np.ndarray, law: str, pairs: dict[str, Draws], floors: Floors) -> np.ndarray:
    """Log loss [G] that the ARM reaches at log FLOPs [G]: the laws' inverse found by bisection in log loss."""
    log_l = pairs["arm"][1]
    bottom = -20.0 if floors is None else float(np.log(np.maximum(floors[0][0], 1e-9)) + 1e-12)
    low, high = np.full(len(log_c), min(bottom, log_l.min())), np.full(len(log_c), log_l.max() + 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        short = _log_flops(pairs, middle, law, floors)[0][0] < log_c
        low, high = np.where(short, low, middle), np.where(short, middle, high)
    return (low + high) / 2


def _log_flops(pairs: dict[str, Draws], log_l: np.ndarray, law: str, floors: Floors) -> tuple[np.ndarray, np.ndarray]:
    """Log FLOPs [n, G] of (ARM, MDM) at log losses [G] under a law, for every draw."""
    out = []
    for i, role in enumerate(ROLES):
        log_c, losses = pairs[role]
        if law in INTERPOLATING:
            out.append(invert(log_c, losses, log_l, INTERPOLATING[law]))
            continue
        if floors is None:
            level, slope = lines(log_c, losses)
            above = np.broadcast_to(log_l, (len(log_c), len(log_l)))
        else:
            level, slope, _ = floor_line(log_c, losses, floors[i])
            rest = np.exp(log_l)[None, :] - floors[i][:, None]
            above = np.log(np.where(rest > 0, rest, np.nan))
        slope = np.where(slope < 0, slope, np.nan)
        out.append((above - level[:, None]) / slope[:, None])
    return out[0], out[1]


def _interval(
    draws: Bootstrap | None, sides: tuple[Frontier, Frontier], log_l: np.ndarray, law: str, level: float,
    floor: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """(lower, upper, share of unknown draws), [G] each."""
    families = [side.family for side in sides]
    if draws is None or any(family not in draws.families for family in families):
        nothing = np.full(len(log_l), np.nan)
        return nothing, nothing, nothing
    convention = sides[0].convention
    pairs = {role: draws.frontier(family, convention) for role, family in zip(ROLES, families, strict=True)}
    log_arm, log_mdm = _log_flops(pairs, log_l, law, _floors(pairs, law, floor, zooms=3))
    return percentile_interval(log_mdm - log_arm, level)


def percentile_interval(log_values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interval of exp(values) over the draws [n, G], [G] each, and the share of draws that are unknown.

    An unknown draw could lie on either side: half of them count below all others and half above, so that with more than
    1 - level of them unknown the interval is (0, inf).
    """
    ranked = np.sort(np.where(np.isfinite(log_values), log_values, np.nan), axis=0)
    n, columns = len(ranked), np.arange(ranked.shape[1])
    known = np.isfinite(ranked).sum(0)
    tail, half = (1 - level) / 2, (n - known) / 2
    first = np.floor(tail * (n - 1) - half).astype(int)
    last = np.ceil((1 - tail) * (n - 1) - half).astype(int)
    lower = np.where(first < 0, -np.inf, ranked[np.clip(first, 0, n - 1), columns])
    upper = np.where(last >= known, np.inf, ranked[np.clip(last, 0, n - 1), columns])
    return np.exp(lower), np.exp(upper), 1 - known / n
