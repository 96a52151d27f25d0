"""The figures of a report: IsoFLOP curves, loss against compute, N* and D* against compute, gap against loss."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from analysis.figures.style import (
    FAINT,
    INK,
    MUTED,
    Picture,
    budget_colours,
    family_colour,
    legend_columns,
    log_axis,
    padded,
    styled,
)  # fmt: skip
from analysis.gap import GapCurve
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.interpolate import Interpolation
from analysis.laws.names import LawName
from analysis.laws.power_law import t_quantile
from analysis.laws.saturating import fit_saturating_power_law
from analysis.minima.bootstrap import Bootstrap, fit_law, law_interval
from analysis.minima.cells import Cell
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, records, select, usable_runs
from analysis.wording import CONVENTIONS, LAWS, family_name, scientific, significant, with_interval
from mdm_jax.results import flop_column

X_LABELS = {
    "params_non_embedding": "N, parameters without embedding and head",
    "params": "parameters",
    "tokens": "D, training tokens",
    "flops_per_token": "exact training FLOPs per token",
}
LOSS_LABEL = "validation loss (nats per token)"
LAW_COLOURS = {
    "interpolated": INK, "piecewise_linear": MUTED, "power_law": "#CC79A7", "shared_floor": "#009E73",
    "own_floors": "#E69F00", "given_floor": "#56B4E9", "parametric": "#0072B2",
}  # fmt: skip
"""Okabe and Ito's."""
LAW_DASHES: dict[str, Any] = {
    "interpolated": "-", "piecewise_linear": "-", "power_law": (0, (4, 2)), "shared_floor": (0, (1, 1.3)),
    "own_floors": (0, (3, 1.5, 1, 1.5)), "given_floor": (0, (6, 1.5)), "parametric": (0, (5, 3)),
}  # fmt: skip
MOST_ERROR = 4.0
"""How far an error bar of N* or D*, as a factor, widens the panel."""
NO_BAND = ("shared_floor", "own_floors", "parametric")
"""Laws with a fitted floor: where budgets are few their interval fills the panel; it stands in the report's table."""
HALO = [withStroke(linewidth=3, foreground="white")]


def plot_isoflop(fit: IsoFlopFit, level: float = 0.95) -> Picture:
    """IsoFLOP curves, a panel for each family: runs, fitted curves, minima; runs that no fit uses are hollow.

    Args:
        fit: from `fit_isoflop`.
        level: of the minima's intervals.
    """
    with styled():
        families = sorted(fit.families)
        figure = Picture(figsize=(1.0 + 4.3 * len(families), 4.7), layout="constrained")
        panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
        losses = np.concatenate([numbers(cell_runs(fit, cell), "loss") for cell in fit.cells])
        minima = numbers(fit.minima, "loss_opt")
        limits = padded(np.concatenate([losses, minima[np.isfinite(minima) & (minima > 0.5 * losses.min())]]), 0.08)
        colours = budget_colours(np.unique([cell.budget for cell in fit.cells]))
        for axes, family in zip(panels, families, strict=True):
            _isoflop_panel(axes, fit, family, colours, limits, level)
        log_axis(panels[0], "y", *limits, unit="plain")
        panels[0].set_ylabel(loss_label(fit))
        _isoflop_legend(figure, fit, colours, level)
        return figure


def loss_label(fit: IsoFlopFit) -> str:
    """What the axis of losses says: where a family's losses are bounds, which one's."""
    used = usable_runs(fit.runs)
    bounds = sorted(set(used.loc[used["loss_kind"] == "nelbo", "family"]))
    if not bounds:
        return LOSS_LABEL
    return f"validation loss (nats per token; {' and '.join(family_name(f) for f in bounds)}: NELBO, a bound)"


def _isoflop_legend(figure: Picture, fit: IsoFlopFit, colours: dict[float, str], level: float) -> None:
    handles = [
        Line2D([], [], color=colour, marker="o", mec="white", mew=0.5, ms=5, lw=1.6, label=scientific(budget))
        for budget, colour in colours.items()
    ]
    if len(usable_runs(fit.runs)) < len(fit.runs):
        handles.append(Line2D([], [], ls="", marker="o", mfc="none", mec=MUTED, ms=5, label="left out"))
    said = f"minimum, {100 * level:g}%"
    handles.append(Line2D([], [], ls="", marker="D", mfc="white", mec=INK, mew=1.4, ms=5.5, label=said))
    columns = legend_columns(len(handles), len(fit.families))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, title="budget (FLOPs)",
                  title_fontsize=8.5, columnspacing=1.4, handletextpad=0.6)  # fmt: skip


def cell_runs(fit: IsoFlopFit, cell: Cell) -> pd.DataFrame:
    """The runs that the cell's curve was fitted on."""
    return fit.runs.iloc[cell.rows].reset_index(drop=True)


def _isoflop_panel(
    axes: Axes, fit: IsoFlopFit, family: str, colours: dict[float, str], limits: tuple[float, float], level: float
) -> None:
    for cell, row in zip(fit.cells, records(fit.minima), strict=True):
        if cell.family != family:
            continue
        colour, ok = colours[cell.budget], row["status"] == "ok"
        runs = cell_runs(fit, cell)
        axes.plot(
            numbers(runs, fit.x), numbers(runs, "loss"), "o", ms=4.5, color=colour, mec="white", mew=0.5, zorder=3
        )
        if cell.fitted:
            low, high = cell.swept
            x = np.exp(np.linspace(low, high, 200) + cell.center)
            axes.plot(x, fit.predict(cell, x), ls="-" if ok else (0, (3, 2)), color=colour, lw=1.6)
        if ok:
            t = t_quantile(level, row["noise_dof"])
            error = np.abs(row["x_opt"] * np.exp([[-t * row["log_x_se"]], [t * row["log_x_se"]]]) - row["x_opt"])
            axes.errorbar(row["x_opt"], row["loss_opt"], xerr=error, fmt="D", ms=6.5, mfc="white", mec=colour,
                          mew=1.6, ecolor=colour, elinewidth=1.2, capsize=2.5, zorder=4)  # fmt: skip
        if not ok:
            _status_label(axes, numbers(runs, fit.x), numbers(runs, "loss"), row["status"], colour)
    _hollow(axes, fit, family, limits)
    xs = numbers(select(fit.runs, fit.runs["family"] == family), fit.x)
    log_axis(axes, "x", *padded(xs[xs > 0], 0.06), unit="count")
    axes.set_title(family_name(family))
    axes.set_xlabel(X_LABELS[fit.x])


def _status_label(axes: Axes, x: np.ndarray, loss: np.ndarray, status: str, colour: str) -> None:
    """Why a budget has no usable minimum, above its largest run, or below where the losses still fall."""
    last = int(np.argmax(x))
    falls = loss[last] == loss.min()
    place: dict[str, Any] = {"xytext": (0, -6), "va": "top"} if falls else {"xytext": (0, 6), "va": "bottom"}
    axes.annotate(status.replace("_", " "), (x[last], loss[last]), textcoords="offset points", ha="right", fontsize=8,
                  color=colour, path_effects=HALO, **place)  # fmt: skip


def _hollow(axes: Axes, fit: IsoFlopFit, family: str, limits: tuple[float, float]) -> None:
    """Runs left out that have a loss, hollow; those above the panel as an arrowhead at its top."""
    out = select(fit.runs, (fit.runs["excluded_reason"] != "") & (fit.runs["family"] == family))
    x, loss = numbers(out, fit.x), numbers(out, "loss")
    seen = np.isfinite(loss) & (loss > 0) & (x > 0)
    high = seen & (loss > limits[1])
    for where, marker, y in ((seen & ~high, "o", loss), (high, "^", np.full_like(loss, limits[1]))):
        if where.any():  # the layout engine stumbles over lines without points
            axes.plot(x[where], y[where], marker, ms=5, mfc="none", mec=MUTED, zorder=3, clip_on=False)


def plot_loss(
    fit: IsoFlopFit, convention: str = "smdm_6nd", draws: Bootstrap | None = None, gap: GapCurve | None = None,
    level: float = 0.95,
) -> Picture:  # fmt: skip
    """Loss against compute: minima, the curve through them, the power law and its band, and the gap as an arrow.

    Args:
        fit: from `fit_isoflop`.
        convention: how FLOPs are counted.
        draws: bootstrap of the fit, for the bands.
        gap: a gap curve whose middle point the arrow shows; pass one of a single loss to choose it.
        level: of the bands and of the minima's intervals.
    """
    with styled():
        figure = Picture(figsize=(5.6, 4.4), layout="constrained")
        axes = figure.subplots()
        sides = [fit.frontier(family, convention) for family in sorted(fit.families)]
        sides = [side for side in sides if len(side.loss)]
        if not sides:
            return _empty(figure, axes, "no budget has a usable minimum")
        x_limits = padded(np.concatenate([side.flops for side in sides]), 0.08)
        for side in sides:
            _loss_curve(axes, fit, side, draws, x_limits, level)
        floored = _shared_floor(axes, sides, x_limits)
        log_axis(axes, "x", *x_limits)
        log_axis(axes, "y", *padded(np.concatenate([side.loss for side in sides]), 0.15), unit="plain")
        shared = overlap(*sides) if len(sides) == 2 else None
        if shared is not None:
            axes.axhspan(*shared, color=FAINT, alpha=0.45, lw=0, zorder=0)
        _loss_legend(axes, floored, shared is not None)
        if gap is not None:
            _gap_arrow(axes, gap)
        axes.set_xlabel(f"training compute C ({CONVENTIONS[convention]})")
        axes.set_ylabel(loss_label(fit))
        return figure


def _shared_floor(axes: Axes, sides: list[Frontier], x_limits: tuple[float, float]) -> bool:
    """Draws both families' laws with one fitted floor, dotted; whether there are budgets enough for them."""
    if len(sides) < 2 or min(len(side.loss) for side in sides) < 3:
        return False
    laws = fit_saturating_power_law([side.flops for side in sides], [side.loss for side in sides], "shared")
    c = np.geomspace(*x_limits, 100)
    for side, law in zip(sides, laws, strict=True):
        axes.plot(c, law.predict(c), color=family_colour(side.family), lw=1.2, ls=(0, (1, 1.6)), zorder=2)
    return True


def _loss_legend(axes: Axes, floored: bool, shared: bool) -> None:
    """What solid, dashed, dotted and the strip mean, in grey."""
    styles: list[tuple[str, Any]] = [("through the minima", "-"), ("power law", (0, (4, 3)))]
    styles += [("shared floor", (0, (1, 1.6)))] if floored else []
    handles: list[Artist] = [Line2D([], [], color=MUTED, lw=1.3, ls=style, label=label) for label, style in styles]
    if shared:
        handles.append(Patch(color=FAINT, alpha=0.45, lw=0, label="both measured"))
    axes.legend(handles=handles, loc="lower left", handlelength=2.2, borderaxespad=0.2)


def _empty(figure: Picture, axes: Axes, message: str) -> Picture:
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", color=MUTED, transform=axes.transAxes)
    return figure


def _loss_curve(
    axes: Axes, fit: IsoFlopFit, side: Frontier, draws: Bootstrap | None, x_limits: tuple[float, float], level: float
) -> None:
    colour, family = family_colour(side.family), side.family
    rows = fit.minima_of(family)
    errors = t_quantile(level, float(rows["noise_dof"].iloc[0])) * numbers(rows, "loss_opt_se")
    axes.errorbar(numbers(rows, flop_column(side.convention)), numbers(rows, "loss_opt"), yerr=np.nan_to_num(errors),
                  fmt="o", ms=6, color=colour, mec="white", mew=0.8, elinewidth=1.2, capsize=2.5, zorder=4)  # fmt: skip
    if len(side.loss) >= 2:
        log_l = np.linspace(np.log(side.loss.max()), np.log(side.loss.min()), 200)
        log_c = Interpolation(*side.logs).log_flops(log_l)[0]
        axes.plot(np.exp(log_c), np.exp(log_l), color=colour, lw=1.8, zorder=3)
    law = fit_law(fit, family, "loss_opt", side.convention)
    c = np.geomspace(*x_limits, 100)
    note = family_name(family)
    if law is not None:
        axes.plot(c, law.predict(c), color=colour, lw=1.0, ls=(0, (4, 3)), zorder=2)
        _law_band(axes, draws, family, "loss_opt", side.convention, c, colour, level)
        note += f"\n$L \\propto C^{{\\,{law.exponent:.3f}}}$"
    if family == "arm":  # labels stand outside the overlap: at the ARM's lowest loss, at the others' highest
        end, place = -1, dict[str, Any](xytext=(-9, -7), ha="right", va="top")
    else:
        end, place = 0, dict[str, Any](xytext=(9, 5), ha="left", va="bottom")
    style: dict[str, Any] = {"color": colour, "fontweight": "bold", "fontsize": 9, "path_effects": HALO, "zorder": 5}
    axes.annotate(note, (side.flops[end], side.loss[end]), textcoords="offset points", **place, **style)


def _law_band(
    axes: Axes, draws: Bootstrap | None, family: str, y: str, convention: str, c: np.ndarray, colour: str, level: float
) -> None:
    """The band of a family's power law over the bootstrap draws."""
    if draws is None or family not in draws.families:
        return
    log_k, exponent = draws.power_laws(family, y, convention)
    good = np.isfinite(exponent)
    if not good.any():
        return
    values = log_k[good, None] + exponent[good, None] * np.log(c)
    low, high = np.exp(np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0))
    axes.fill_between(c, low, high, color=colour, alpha=0.13, lw=0, zorder=1)


def _gap_arrow(axes: Axes, gap: GapCurve) -> None:
    i = len(gap.loss) // 2
    if not np.isfinite(gap.ratio[i]):
        return
    start, end, loss = gap.flops_arm[i], gap.flops_mdm[i], gap.loss[i]
    axes.annotate("", (end, loss), (start, loss), zorder=6,
                  arrowprops={"arrowstyle": "<|-|>", "color": INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    text = f"×{with_interval(gap.ratio[i], gap.lower[i], gap.upper[i])}"
    axes.annotate(text, (float(np.sqrt(start * end)), loss), xytext=(0, 5), textcoords="offset points", ha="center",
                  va="bottom", fontsize=9, fontweight="bold", path_effects=HALO, zorder=6)  # fmt: skip


def plot_allocation(
    fit: IsoFlopFit, convention: str = "smdm_6nd", draws: Bootstrap | None = None, level: float = 0.95
) -> Picture:
    """The best size N* and its tokens D* against compute, with the exponents of their power laws.

    Args:
        fit: from `fit_isoflop`.
        convention: how FLOPs are counted.
        draws: bootstrap of the fit, for the bands and the exponents' intervals.
        level: of the bands and of the minima's intervals.
    """
    with styled():
        figure = Picture(figsize=(9.6, 4.0), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, y, title in zip(panels, ("n_opt", "d_opt"), ("Best size N*", "Best tokens D*"), strict=True):
            values, flops, lines = [], [], []
            for family in sorted(fit.families):
                rows = fit.minima_of(family)
                if len(rows):
                    flops.append(numbers(rows, flop_column(convention)))
                    best = numbers(rows, y)
                    factor = np.minimum(np.exp(_log_errors(rows, y, level)), MOST_ERROR)
                    values += [best / factor, best * factor]
                    lines.append(_allocation(axes, fit, family, y, convention, draws, level))
            if not values or not np.isfinite(np.concatenate(flops)).any():
                _empty(figure, axes, "no budget has a usable minimum")
                continue
            log_axis(axes, "x", *padded(np.concatenate(flops), 0.08))
            log_axis(axes, "y", *padded(np.concatenate(values), 0.14), unit="count")
            axes.set_title(title)
            axes.set_xlabel(f"training compute C ({CONVENTIONS[convention]})")
            axes.legend(handles=lines, loc="upper left", handlelength=1.4, borderaxespad=0.2)
        panels[0].set_ylabel("parameters without embedding and head")
        panels[1].set_ylabel("training tokens")
        return figure


def _log_errors(rows: pd.DataFrame, y: str, level: float) -> np.ndarray:
    """Half widths [B] of the intervals of log N* or log D*; 0 where unknown."""
    t = t_quantile(level, float(rows["noise_dof"].iloc[0]))
    return np.nan_to_num(np.minimum(t * numbers(rows, f"{y}_se") / numbers(rows, y), 10.0))


def _allocation(
    axes: Axes, fit: IsoFlopFit, family: str, y: str, convention: str, draws: Bootstrap | None, level: float
) -> Line2D:
    """Draws a family's minima and law; the legend's entry with the exponent and its interval."""
    rows, colour = fit.minima_of(family), family_colour(family)
    c, values = numbers(rows, flop_column(convention)), numbers(rows, y)
    factor = np.exp(_log_errors(rows, y, level))
    ends = [values - values / factor, values * factor - values]
    axes.errorbar(c, values, yerr=ends, fmt="o", ms=6, color=colour, mec="white", mew=0.8, elinewidth=1.2, capsize=2.5,
                  zorder=4)  # fmt: skip
    law = fit_law(fit, family, y, convention)
    label = family_name(family)
    if law is not None:
        grid = np.geomspace(*padded(c[np.isfinite(c)], 0.5), 60)
        axes.plot(grid, law.predict(grid), color=colour, lw=1.2, ls=(0, (4, 3)), zorder=2)
        _law_band(axes, draws, family, y, convention, grid, colour, level)
        interval = ""
        if draws is not None and family in draws.families:
            low, high = law_interval(draws.power_laws(family, y, convention), level)["exponent"]
            interval = f"  [{significant(low)}, {significant(high)}]"
        label += f":  $\\propto C^{{\\,{law.exponent:.3f}}}${interval}"
    return Line2D([], [], color=colour, marker="o", mec="white", ms=6, lw=1.2, ls=(0, (4, 3)), label=label)


def plot_gap(curves: list[GapCurve]) -> Picture:
    """The gap against loss under several laws, with intervals; hatched where a law is extrapolated."""
    with styled():
        figure = Picture(figsize=(5.6, 4.4), layout="constrained")
        axes = figure.subplots()
        if not curves:
            return _empty(figure, axes, "no law gives a gap")
        for curve in curves:
            _gap_curve(axes, curve, LAW_COLOURS[curve.law])
        if (shared := curves[0].overlap) is not None:
            axes.axvspan(*shared, color=FAINT, alpha=0.45, lw=0, zorder=0, label="both measured")
        losses = np.concatenate([curve.loss for curve in curves])
        log_axis(axes, "x", *padded(losses, 0.01), unit="plain")
        axes.invert_xaxis()
        log_axis(axes, "y", *_gap_limits(curves), unit="plain")
        axes.set_xlabel(LOSS_LABEL + ", better to the right")
        axes.set_ylabel(f"compute ratio MDM / ARM ({CONVENTIONS[curves[0].convention]})")
        axes.legend(loc="upper left", handlelength=1.6, borderaxespad=0.2)
        return figure


def _gap_limits(curves: list[GapCurve]) -> tuple[float, float]:
    """Limits that show all ratios, and the intervals as far as a factor of three around them."""
    ratios = np.concatenate([curve.ratio[np.isfinite(curve.ratio)] for curve in curves])
    banded = [[*curve.lower, *curve.upper] for curve in curves if curve.law not in NO_BAND]
    ends = np.concatenate(banded or [ratios])
    ends = ends[np.isfinite(ends) & (ends > ratios.min() / 3) & (ends < ratios.max() * 3)]
    low, high = padded(np.concatenate([ratios, ends]), 0.1)
    return low, high * (high / low) ** 0.22


def _gap_curve(axes: Axes, curve: GapCurve, colour: str) -> None:
    inside = curve.support == "interpolated"
    measured = LawName(curve.law).interpolates
    axes.plot(curve.loss, curve.ratio, color=colour, lw=2.0 if measured else 1.4, ls=LAW_DASHES[curve.law],
              label=LAWS[curve.law], zorder=4 if measured else 3)  # fmt: skip
    if curve.law in NO_BAND or np.isnan(curve.lower).all():
        return
    axes.fill_between(curve.loss, curve.lower, curve.upper, where=inside, color=colour, alpha=0.16, lw=0, zorder=2)
    if not measured:
        outside = ~inside | np.roll(~inside, 1) | np.roll(~inside, -1)  # reach over to the measured part
        axes.fill_between(curve.loss, curve.lower, curve.upper, where=outside, color=colour, alpha=0.10, lw=0, zorder=2)
        axes.fill_between(curve.loss, curve.lower, curve.upper, where=outside, facecolor="none", edgecolor=colour,
                          alpha=0.45, hatch="////", lw=0, zorder=2)  # fmt: skip
