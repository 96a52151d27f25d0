"""The plan on one screen: a row for each budget of each family, totals, and warnings, the most serious first."""

import os
import sys
from collections.abc import Callable, Sequence
from itertools import groupby

from isoflop.cost import Machine
from isoflop.place.advice import CurveForecast
from isoflop.wording import columns, duration, money, plain, short_number, wrapped
from mdm_jax.spec import FlopConvention, RunSpec
from mdm_jax.spec.counting import count_parameters, trained_flops

LINES = 40
MOST_ROWS = 18
"""Rows of the table. A sweep of more curves gets one row for all budgets of a family."""
HEADER = ("group", "family", "budget", "runs", "sizes", "best about", "tokens a run", "epochs", "FLOPs", "time")
DISPENSABLE = ("best about", "FLOPs")
"""Columns that are left out on a narrow terminal, the first one first."""
OTHER_LINES = 15
"""Lines of a screen besides the table and the warnings."""


def show_screen(
    runs: Sequence[RunSpec], machine: Machine, unique_tokens: int | None, forecasts: Sequence[CurveForecast]
) -> int:
    """Prints the table and the totals.

    Args:
        runs: the runs in the order of the plan.
        machine: the machine of the estimated times, device-hours and money.
        unique_tokens: tokens of one epoch over the corpus; None if it is not prepared yet.
        forecasts: the expected optimum of each curve.

    Returns:
        The number of lines left for the warnings.
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
    return LINES - OTHER_LINES - len(rows)


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    """The table, without `DISPENSABLE` columns as long as it is too wide."""
    text = plain(title, HEADER, rows)
    for name in DISPENSABLE:
        if max(map(len, text.splitlines())) > columns():
            i = HEADER.index(name)
            rows = [(*row[:i], "", *row[i + 1 :]) for row in rows]
            text = plain(title, HEADER, rows)
    return text


def _row(own: Sequence[RunSpec], machine: Machine, unique: int | None, known: dict) -> tuple[str, ...]:
    """One row for the runs of one or more curves, with ranges from the smallest to the largest value."""
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
    """`least-most`, one of them if they look alike, empty without values."""
    return "-".join(dict.fromkeys(shown(value) for value in (min(values), max(values)))) if values else ""


def _flops(runs: Sequence[RunSpec]) -> tuple[int, FlopConvention]:
    """FLOPs of the runs under the convention of their budgets, or under `exact` if these differ."""
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
        f" {machine.description}."
    )


def show_warnings(alarms: Sequence[str], warnings: Sequence[str], lines: int | None) -> None:
    """Prints alarms and warnings to stdout, and also to stderr if that is another terminal, pipe or file.

    Args:
        alarms: reasons why the sweep is useless or too long.
        warnings: weaknesses of the sweep.
        lines: most lines on stdout; None shows all. The first message is always shown.
    """
    said = [*(f"WARNING: {text}" for text in alarms), *(f"warning: {text}" for text in warnings)]
    used = 0
    for i, text in enumerate(map(wrapped, said)):
        used += text.count("\n") + 1
        if i and lines is not None and used > lines:
            print(f"and {len(said) - i} more warning(s): --cells")
            break
        print(text)
    if not _share_output():
        for text in said:
            print(text, file=sys.stderr)


def _share_output() -> bool:
    """Whether stdout and stderr are the same terminal, pipe or file."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):  # one of them is no file, as in a notebook
        return False
