"""What the command lines share: their options, how these choose runs and a recipe, how an answer or an error is shown.

`analysis.fit`, `analysis.gap` and `analysis.report` read the same tables by the same options; a new way to choose runs
belongs in `new_parser` and `runs_of`.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from analysis.minima.choices import ABSCISSAE, CURVES, SCATTER, WEIGHTS
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT, UNITS
from mdm_jax.command import DONE, Parser, exit_code

if TYPE_CHECKING:  # pandas would make --help wait for a second
    import pandas as pd

    from analysis.minima.cells import Recipe

Answer = TypeVar("Answer")
RECIPE = ("curve", "x", "log_loss", "window", "noise_sd", "weights", "scatter", "preset")


def new_parser(module: str, description: str, runs: str = "RUNS") -> argparse.ArgumentParser:
    """A parser that knows which runs to read."""
    made = Parser(module, description=description)
    add = made.add_argument
    add("runs", metavar=runs, help="a sweep's directory, or a run table (.csv, .tsv, .jsonl, .parquet)")
    add("--columns", metavar="OURS=THEIRS,…", help="map foreign columns: params_non_embedding=N,loss=val")
    chosen = "only these runs, such as group=exact; may be repeated"
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help=chosen)
    add("--arm", metavar="NAME", help="what the table calls the autoregressive family (default: arm)")
    add("--mdm", metavar="NAME", help="what it calls the masked diffusion family (default: mdm)")
    return made


def families_of(given: argparse.Namespace) -> dict[str, str]:
    """The families' names in the table, by our names, where the options give them."""
    return {role: name for role in ("arm", "mdm") if (name := getattr(given, role))}


def runs_of(given: argparse.Namespace) -> "pd.DataFrame":
    """The run table that the options ask for.

    Raises:
        ValueError: nothing to read, a column that lacks, a family or a --where that no run meets.
    """
    from analysis.runs.load import read_runs

    return read_runs(given.runs, given.columns, given.where, families_of(given))


def add_recipe(made: argparse.ArgumentParser) -> None:
    """Options that choose an IsoFLOP recipe."""
    add = made.add_argument
    add("--curve", choices=CURVES, help="of loss in log x (default: quadratic)")
    add("--x", choices=ABSCISSAE, help="abscissa")
    add("--log-loss", action="store_true", help="fit log loss in place of loss")
    add("--window", type=float, metavar="FACTOR", help="only runs within this factor of the minimum")
    noise = "run-to-run sd of a loss, where it is known: 0.004, or arm=0.003,mdm=0.006"
    add("--noise-sd", type=_noise, metavar="NATS", help=noise)
    add("--weights", choices=WEIGHTS, help="of the runs (default: by their errors)")
    beyond = "scatter of the minima around smooth laws beyond their errors: whether intervals include it (default: add)"
    add("--scatter", choices=SCATTER, help=beyond)
    add("--preset", choices=("smdm",), help="a paper's own recipe, exactly")


def _noise(text: str) -> float | dict[str, float]:
    """The noise of all families from "0.004", or by family from "arm=0.003,mdm=0.006"."""
    pairs = [part.partition("=") for part in text.split(",")] if "=" in text else [("", "", text)]
    try:
        by_family = {family.strip().lower(): float(sd) for family, _, sd in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: must be such as 0.004, or arm=0.003,mdm=0.006") from None
    return by_family.get("", by_family)


def recipe_of(given: argparse.Namespace) -> "Recipe":
    """The `Recipe` that the options ask for.

    Raises:
        ValueError: a preset together with an option that would change it.
    """
    from analysis.minima.cells import Recipe
    from analysis.minima.presets import PRESETS

    asked: dict[str, Any] = {name: getattr(given, name) for name in RECIPE if name != "preset"}
    asked = {name: value for name, value in asked.items() if value not in (None, False)}
    if not given.preset:
        return Recipe(**asked)
    scatter = asked.pop("scatter", None)  # no part of the published fits, and so free
    if asked:
        raise ValueError(f"--preset {given.preset}: fixes the recipe, so leave out {', '.join(sorted(asked))}")
    recipe = PRESETS[given.preset].recipe
    return replace(recipe, scatter=scatter) if scatter else recipe


def refuse_recipe(given: argparse.Namespace, approach: str) -> None:
    """Refuses options of the IsoFLOP curves where there are none.

    Raises:
        ValueError: one was given; it is named.
    """
    asked = [name for name in RECIPE if getattr(given, name) not in (None, False)]
    if asked:
        flag = asked[0].replace("_", "-")
        raise ValueError(f"--{flag}: goes with IsoFLOP curves, and --approach {approach} has none; leave it out")


def add_bootstrap(made: argparse.ArgumentParser) -> None:
    """Options of the bootstrap, and the level of all intervals."""
    made.add_argument("--bootstrap", type=int, default=DRAWS, metavar="N", help="draws (default: %(default)s)")
    made.add_argument("--seed", type=int, default=SEED, help="of the bootstrap (default: %(default)s)")
    made.add_argument("--unit", choices=UNITS, default=UNIT, help="what the bootstrap perturbs (default: %(default)s)")
    add_level(made)


def add_level(made: argparse.ArgumentParser) -> None:
    """The option for the level of all intervals."""
    made.add_argument("--level", type=float, default=LEVEL, help="of the intervals (default: %(default)s)")


def add_json(made: argparse.ArgumentParser) -> None:
    """The option that prints JSON in place of tables."""
    made.add_argument("--json", action="store_true", help="all numbers as JSON in place of tables")


def plain(value: Any) -> Any:
    """The value in JSON's types: arrays become lists, nan (unknown) null, and an open end the text "inf" or "-inf"."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def answer(
    made: argparse.ArgumentParser,
    arguments: Any,
    work: Callable[[argparse.Namespace], Answer],
    text: Callable[[Answer], str],
) -> int:
    """Exit code of a command line: 0 with `work`'s answer on stdout, or one line on stderr that says why not."""
    given = made.parse_args(arguments)

    def respond() -> int:
        found = work(given)
        as_json = getattr(given, "json", False)
        print(json.dumps(plain(found), indent=1, allow_nan=False) if as_json else text(found))
        return DONE

    return exit_code(respond)
