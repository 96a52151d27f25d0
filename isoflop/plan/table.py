"""The printed plan: every cell with its numbers, what is expected of each curve, and totals.

On a terminal a table that is wider than the window is cut into several, each beginning with the columns that name the
row; elsewhere lines are as long as their numbers need, so that other programs can read them.
"""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby

from isoflop.cost import Machine
from isoflop.place.advice import CurveForecast
from isoflop.wording import duration, money, short_number
from mdm_jax.counting import count_parameters, train_flops, trained_flops
from mdm_jax.spec import FlopConvention, RunSpec

CONVENTIONS = tuple(convention.value for convention in FlopConvention)
LEFT = ("group", "family", "size", "")
GAP = 2
"""Blanks between columns."""
Row = tuple[str, ...]


def show_cells(runs: Sequence[RunSpec], machine: Machine, unique_tokens: int | None) -> None:
    """Prints the cells.

    Args:
        runs: in the order of the plan.
        machine: the assumption behind times, device-hours and money.
        unique_tokens: tokens in one epoch over the corpus, None where it is not prepared yet.
    """
    names = ("group", "family", "budget", "size", "seed", "N", "D", "D/N", "steps", "batch", "lr", "warmup", "epochs")
    header = (*names, *_cost_header(machine), *CONVENTIONS)
    seeds = len({run.seed for run in runs})
    _show(
        "Cells", header, [_cell_row(run, machine, unique_tokens) for run in runs], keys=5 if seeds > 1 else 4, apart=3
    )
    if unique_tokens is None:
        print("epochs: unknown until the corpus is prepared (python -m mdm_jax.data.prepare)\n")


def show_forecasts(curves: Sequence[CurveForecast], window: float) -> None:
    """Prints what is expected of each curve, and how many of its sizes lie around the expected optimum."""
    near = f"x{window:g}"
    header = ("group", "family", "budget", "N*", "D*", "loss", "sizes", f"{near} below", f"{near} above", "")
    rows = [
        (
            curve.group,
            curve.family.value,
            f"{curve.budget:g}",
            short_number(curve.n_opt),
            short_number(curve.expected.tokens) if curve.expected else "",
            f"{curve.expected.loss:.3f}" if curve.expected else "",
            str(len(curve.sizes)),
            str(curve.below),
            str(curve.above),
            "held out" if curve.held_out else "" if curve.expected else "a guess",
        )
        for curve in curves
    ]
    if rows:
        _show("Expected", header, rows, keys=3)


def show_totals(runs: Sequence[RunSpec], machine: Machine) -> None:
    """Prints the totals by curve, by family and of all, and what the numbers mean.

    Totals are of what is trained: a run that starts from a parent counts from there.
    """
    header = ("group", "family", "budget", "runs", "D", *_cost_header(machine), *CONVENTIONS)
    order = list(dict.fromkeys(_curve(run)[:2] for run in runs))
    ordered, rows = sorted(runs, key=lambda run: (order.index(_curve(run)[:2]), _curve(run)[2])), []
    for (group, family), own in groupby(ordered, lambda run: _curve(run)[:2]):
        cells = list(own)
        for _, curve in groupby(cells, _curve):
            members = list(curve)
            rows.append(_total_row((group, family, _budget(members[0])), members, machine))
        rows.append(_total_row((group, family, "all"), cells, machine))
    rows.append(_total_row(("", "all", ""), runs, machine))
    _show("Totals", header, rows, keys=3)
    print(f"budget: FLOPs under {' or '.join(dict.fromkeys(run.cell.convention.value for run in runs))}")
    print(f"time: {machine.stated}; exact FLOPs, the evaluation included")


def wrapped(text: str) -> str:
    """The text in lines of a terminal's width, each further one indented; as it is elsewhere."""
    if not sys.stdout.isatty():
        return text
    return textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent="  ", break_on_hyphens=False)


def _cell_row(run: RunSpec, machine: Machine, unique: int | None) -> Row:
    n = count_parameters(run.model).non_embedding
    return (
        run.cell.group,
        run.family.value,
        _budget(run),
        run.cell.size,
        str(run.seed),
        short_number(n),
        short_number(run.train_tokens),
        f"{run.train_tokens / n:.3g}",
        str(run.schedule.steps),
        str(run.optim.global_batch),
        f"{run.optim.lr_peak:.3g}",
        str(run.schedule.warmup_steps),
        f"{run.train_tokens / unique:.3g}" if unique else "unknown",
        *_costs([run], machine),
        *(f"{train_flops(run, convention):.3e}" for convention in FlopConvention),
    )


def _total_row(names: Row, runs: Sequence[RunSpec], machine: Machine) -> Row:
    tokens = sum(run.train_tokens * (1 - run.cell.parent_steps / run.schedule.steps) for run in runs)
    flops = (f"{sum(trained_flops(run, convention) for run in runs):.3e}" for convention in FlopConvention)
    return (*names, str(len(runs)), short_number(tokens), *_costs(runs, machine), *flops)


def _curve(run: RunSpec) -> tuple[str, str, float]:
    return run.cell.group, run.family.value, run.cell.budget or 0.0


def _budget(run: RunSpec) -> str:
    return f"{run.cell.budget:g}" if run.cell.budget else "trunk" if run.cell.segment else "none"


def _cost_header(machine: Machine) -> Row:
    hours = ("device-h",) if machine.on_accelerators else ()
    return ("time", *hours, *(("price",) if machine.price_per_hour is not None else ()))


def _costs(runs: Sequence[RunSpec], machine: Machine) -> Row:
    """Time, device-hours where devices are counted, and money where a price was given."""
    hours, price = machine.device_hours(runs), machine.price(runs)
    counted = (f"{hours:,.{0 if hours >= 100 else 2}f}",) if machine.on_accelerators else ()
    seconds = sum(machine.seconds(run) for run in runs)
    return (duration(seconds), *counted, *(() if price is None else (money(price),)))


def _show(title: str, header: Row, rows: Sequence[Row], keys: int, apart: int = 0) -> None:
    """Prints a table, an empty first column left out (the group, where no run has one).

    On a terminal it becomes several, each with the first `keys` columns, where one would be too wide, and an empty
    line stands between rows that differ in the first `apart` columns.
    """
    if not any(row[0] for row in rows):
        header, rows, keys, apart = header[1:], [row[1:] for row in rows], keys - 1, max(apart - 1, 0)
    if not sys.stdout.isatty():
        print(plain(title, header, rows))
        return
    for i, block in enumerate(_blocks(header, rows, keys, shutil.get_terminal_size().columns)):
        cut = [tuple(row[c] for c in block) for row in (header, *rows)]
        print(plain(title if i == 0 else f"{title}, continued", cut[0], cut[1:], apart))


def _blocks(header: Row, rows: Sequence[Row], keys: int, columns: int) -> list[list[int]]:
    """Columns of each part of a table that is to be at most `columns` wide, the first `keys` in every part."""
    widths = [width + GAP for width in _widths(header, rows)]
    blocks = [list(range(keys))]
    for column in range(keys, len(header)):
        fits = sum(widths[c] for c in blocks[-1]) + widths[column] <= columns + GAP
        if not fits and len(blocks[-1]) > keys:
            blocks.append(list(range(keys)))
        blocks[-1].append(column)
    return blocks


def plain(title: str, header: Row, rows: Sequence[Row], apart: int = 0) -> str:
    """The table as aligned text, as wide as its numbers need; see `_show` for `apart`."""
    widths = _widths(header, rows)
    lines, last = [title], header
    for row in (header, *rows):
        if row[:apart] != last[:apart]:
            lines.append("")
        cells = (c.ljust(w) if h in LEFT else c.rjust(w) for c, w, h in zip(row, widths, header, strict=True))
        lines.append((" " * GAP).join(cells).rstrip())
        last = row
    return "\n".join(lines) + "\n"


def _widths(header: Row, rows: Sequence[Row]) -> list[int]:
    return [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
