"""The plan on one screen: a row for each budget of each family, totals, warnings loudest first, the next command."""

import os
import sys
from collections.abc import Callable, Sequence
from itertools import groupby

from isoflop.cost import Machine
from isoflop.place.advice import CurveForecast
from isoflop.wording import columns, duration, money, plain, short_number, wrapped
from mdm_jax.counting import count_parameters, trained_flops
from mdm_jax.spec import FlopConvention, RunSpec

LINES = 40
MOST_ROWS = 18
"""Rows of the table; a sweep of more curves has a row for all budgets of a family."""
HEADER = ("group", "family", "budget", "runs", "sizes", "best about", "tokens a run", "epochs", "FLOPs", "time")
DISPENSABLE = ("best about", "FLOPs")
LINES_AROUND = 15
"""Lines of the screen beside the table and the warnings."""


def show_screen(
    runs: Sequence[RunSpec], machine: Machine, unique_tokens: int | None, forecasts: Sequence[CurveForecast]
) -> int:
    """Prints the table and the totals.

    Args:
        runs: in the order of the plan.
        machine: the assumption behind times, device-hours and money.
        unique_tokens: tokens in one epoch over the corpus, None where it is not prepared yet.
        forecasts: with the expected optimum of each curve.

    Returns:
        How many lines are left for the warnings.
    """
    keys: tuple[Callable[[RunSpec], tuple], ...] = (
        lambda run: (run.cell.group, run.family.value, run.cell.budget or 0.0),
        lambda run: (run.cell.group, run.family.value),
        lambda run: (run.family.value,),
    )
    key = next(key for key in keys if len(set(map(key, runs))) <= MOST_ROWS or key is keys[-1])
    order = {name: i for i, name in enumerate(dict.fromkeys(key(run)[:2] for run in runs))}
    ordered = sorted(runs, key=lambda run: (order[key(run)[:2]], *key(run)[2:]))
    curves = [list(own) for _, own in groupby(ordered, key)]
    known = {(curve.group, curve.family, curve.budget, curve.convention): curve for curve in forecasts}
    rows = [_row(own, machine, unique_tokens, known) for own in curves]
    what = "sizes: parameters without embedding and head; best about: expected best size"
    print(_table(f"Plan: {len(runs)} runs; {what}", rows))
    print(wrapped(_totals(runs, machine)))
    if unique_tokens is None:
        print(wrapped("Epochs over the text: unknown until it is prepared."))
    return LINES - LINES_AROUND - len(rows)


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    """The table, without as many of the `DISPENSABLE` columns as its width demands."""
    text = plain(title, HEADER, rows)
    for name in DISPENSABLE:
        if max(map(len, text.splitlines())) > columns():
            i = HEADER.index(name)
            rows = [(*row[:i], "", *row[i + 1 :]) for row in rows]
            text = plain(title, HEADER, rows)
    return text


def _row(own: Sequence[RunSpec], machine: Machine, unique: int | None, known: dict) -> tuple[str, ...]:
    """One row: what the runs of a curve, or of several, have from the least to the most."""
    budgets = [run.cell.budget for run in own if run.cell.budget]
    keys = dict.fromkeys((run.cell.group, run.family, run.cell.budget, run.cell.convention) for run in own)
    curves: list[CurveForecast] = [known[key] for key in keys if key in known]
    held_out = " held out" if curves and all(curve.held_out for curve in curves) else ""
    groups = dict.fromkeys(run.cell.group for run in own)
    tokens = [run.train_tokens for run in own]
    return (
        next(iter(groups)) if len(groups) == 1 else f"{len(groups)} groups",
        own[0].family.value,
        (_span(budgets, "{:g}".format) or "trunks") + held_out,
        str(len(own)),
        _span([count_parameters(run.model).non_embedding for run in own], _short),
        _span([curve.n_opt for curve in curves], _short),
        _span(tokens, _short),
        short_number(max(tokens) / unique, 2) if unique else "",
        f"{_flops(own)[0]:.2e}",
        duration(sum(machine.seconds(run) for run in own)),
    )


def _short(value: int | float) -> str:
    return short_number(value, 3)


def _span(values: Sequence[int | float], shown: Callable[[int | float], str]) -> str:
    """`least-most`, one value where both look alike, nothing without values."""
    return "-".join(dict.fromkeys(shown(value) for value in (min(values), max(values)))) if values else ""


def _flops(runs: Sequence[RunSpec]) -> tuple[int, FlopConvention]:
    """FLOPs that the runs take, under the convention of their budgets; under `exact` where these differ."""
    conventions = {run.cell.convention for run in runs}
    convention = conventions.pop() if len(conventions) == 1 else FlopConvention.EXACT
    return sum(trained_flops(run, convention) for run in runs), convention


def _totals(runs: Sequence[RunSpec], machine: Machine) -> str:
    flops, convention = _flops(runs)
    seconds, price = sum(machine.seconds(run) for run in runs), machine.price(runs)
    hours = f", {machine.device_hours(runs):,.0f} device-hours" if machine.on_accelerators else ""
    cost = "" if price is None else f", {money(price)}"
    return (
        f"In all: {len(runs)} runs, {flops:.3g} FLOPs ({convention.value}), {duration(seconds)}{hours}{cost}:"
        f" {machine.stated}."
    )


def show_warnings(alarms: Sequence[str], warnings: Sequence[str], lines: int | None) -> None:
    """Prints the warnings, loudest first, to stdout; and to stderr, unless the same terminal or file shows both.

    Args:
        alarms: what makes the sweep useless or endless.
        warnings: what weakens it.
        lines: of stdout that there is room for; None shows all. The first warning is always shown.
    """
    said = [*(f"WARNING: {text}" for text in alarms), *(f"warning: {text}" for text in warnings)]
    used = 0
    for i, text in enumerate(map(wrapped, said)):
        used += text.count("\n") + 1
        if i and lines is not None and used > lines:
            print(f"and {len(said) - i} more warning(s): --cells")
            break
        print(text)
    if not _one_place():
        for text in said:
            print(text, file=sys.stderr)


def _one_place() -> bool:
    """Whether stdout and stderr are the same terminal, pipe or file."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):  # one of them is no file, as in a notebook
        return False
