"""The printed grid: every cell with its numbers, then totals per curve. Rich on a terminal, plain elsewhere."""

import shutil
import sys
from collections.abc import Sequence
from itertools import groupby

from isoflop.cost import Speed
from mdm_jax.counting import count_parameters, train_flops
from mdm_jax.spec import FlopConvention, RunSpec

CONVENTIONS = tuple(convention.value for convention in FlopConvention)
CELL_HEADER = ("family", "budget", "size", "seed", "N", "D", "steps", "batch", "lr", *CONVENTIONS, "epochs", "time")
TOTAL_HEADER = ("family", "budget", "runs", "D", *CONVENTIONS, "time")
LEFT = ("family", "size")
Row = tuple[str, ...]


def show_grid(runs: Sequence[RunSpec], speed: Speed, unique_tokens: int | None) -> None:
    """Prints the cells and the totals per budget and family.

    Args:
        runs: the cells, in the order of the plan.
        speed: the assumption behind the times, printed with them.
        unique_tokens: tokens in one epoch over the corpus, None where it is not prepared yet.
    """
    _show("Cells", CELL_HEADER, [_cell_row(run, speed, unique_tokens) for run in runs])
    _show("Totals", TOTAL_HEADER, [*_curve_rows(runs, speed), _total_row("all", "", runs, speed)])
    print(
        f"time: one run after the other at {speed.flops_per_second:.3g} FLOP/s (exact, evaluation included) and"
        f" {speed.run_overhead_seconds:g} s a run, both assumed (--flops-per-second, --run-overhead)"
    )
    if unique_tokens is None:
        print("epochs: unknown until the corpus is prepared (python -m mdm_jax.data.prepare)")


def short_number(value: int | float) -> str:
    """Four digits and a magnitude: `169.9M`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Time for people: `14 s`, `3.2 min`, `5.1 h`, `12 d`."""
    for most, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < most:
            return f"{seconds / divisor:.{0 if divisor == 1 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} d"


def _cell_row(run: RunSpec, speed: Speed, unique: int | None) -> Row:
    return (
        run.family.value,
        f"{run.cell.budget:g}",
        run.cell.size,
        str(run.seed),
        short_number(count_parameters(run.model).non_embedding),
        short_number(run.train_tokens),
        str(run.schedule.steps),
        str(run.optim.global_batch),
        f"{run.optim.lr_peak:.3g}",
        *(f"{train_flops(run, convention):.3e}" for convention in FlopConvention),
        f"{run.train_tokens / unique:.3g}" if unique else "unknown",
        duration(speed.seconds(run)),
    )


def _curve_rows(runs: Sequence[RunSpec], speed: Speed) -> list[Row]:
    ordered = sorted(runs, key=_curve)
    return [
        _total_row(family, f"{budget:g}", list(cells), speed) for (family, budget), cells in groupby(ordered, _curve)
    ]


def _curve(run: RunSpec) -> tuple[str, float]:
    return run.family.value, run.cell.budget or 0.0


def _total_row(family: str, budget: str, runs: Sequence[RunSpec], speed: Speed) -> Row:
    return (
        family,
        budget,
        str(len(runs)),
        short_number(sum(run.train_tokens for run in runs)),
        *(f"{sum(train_flops(run, convention) for run in runs):.3e}" for convention in FlopConvention),
        duration(sum(speed.seconds(run) for run in runs)),
    )


def _show(title: str, header: Row, rows: list[Row]) -> None:
    spare = 3 * len(header)  # rich squeezes and breaks numbers where a table with its borders is too wide
    if sys.stdout.isatty() and sum(_widths(header, rows)) + spare <= shutil.get_terminal_size().columns:
        _show_rich(title, header, rows)
    else:
        print(plain(title, header, rows))


def plain(title: str, header: Row, rows: Sequence[Row]) -> str:
    """The table as aligned text, as wide as its numbers need."""
    widths = _widths(header, rows)
    lines = [title]
    for row in (header, *rows):
        cells = (c.ljust(w) if h in LEFT else c.rjust(w) for c, w, h in zip(row, widths, header, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _widths(header: Row, rows: Sequence[Row]) -> list[int]:
    return [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]


def _show_rich(title: str, header: Row, rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
