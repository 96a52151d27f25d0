"""The full plan as tables: every cell, the expected optimum of each curve, and totals."""

from collections.abc import Sequence
from itertools import groupby

from isoflop.cost import Machine
from isoflop.place.advice import CurveForecast
from isoflop.wording import Row, duration, money, plain, short_number
from mdm_jax.spec import FlopConvention, RunSpec
from mdm_jax.spec.counting import count_parameters, train_flops, trained_flops

CONVENTIONS = tuple(convention.value for convention in FlopConvention)


def show_cells(runs: Sequence[RunSpec], machine: Machine, unique_tokens: int | None) -> None:
    """Prints the cells.

    Args:
        runs: the runs in the order of the plan.
        machine: the machine of the estimated times, device-hours and money.
        unique_tokens: tokens of one epoch over the corpus; None if it is not prepared yet.
    """
    names = ("group", "family", "budget", "size", "seed", "N", "D", "D/N", "steps", "batch", "lr", "warmup", "epochs")
    header = (*names, *_cost_header(machine), *CONVENTIONS)
    print(plain("Cells", header, [_cell_row(run, machine, unique_tokens) for run in runs]))
    if unique_tokens is None:
        print("epochs: unknown until the corpus is prepared (python -m mdm_jax.data.prepare)\n")


def show_forecasts(curves: Sequence[CurveForecast], window: float) -> None:
    """Prints the expected optimum of each curve, and the number of its sizes on each side."""
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
    print(plain("Expected", header, rows))


def show_totals(runs: Sequence[RunSpec], machine: Machine) -> None:
    """Prints the totals of each curve, each family and all runs, and what the numbers mean.

    A run that starts from a parent counts from there.
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
    print(plain("Totals", header, rows))
    print(f"budget: FLOPs under {' or '.join(dict.fromkeys(run.cell.convention.value for run in runs))}")
    print(f"time: {machine.description}; exact FLOPs, the evaluation included")


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
    """Time; device-hours if devices are counted; money if a price is given."""
    hours, price = machine.device_hours(runs), machine.price(runs)
    counted = (f"{hours:,.{0 if hours >= 100 else 2}f}",) if machine.on_accelerators else ()
    seconds = sum(machine.seconds(run) for run in runs)
    return (duration(seconds), *counted, *(() if price is None else (money(price),)))
