"""The command line that makes a report again."""

import shlex
from collections.abc import Mapping, Sequence

from analysis.minima.bootstrap import Bootstrap
from analysis.minima.cells import Recipe
from analysis.minima.presets import PRESETS
from analysis.runs.columns import columns_text
from analysis.sampling import UNIT


def report_command(
    name: str,
    draws: Bootstrap,
    level: float,
    recipe: Recipe,
    columns: str | Mapping[str, str] | None,
    families: Mapping[str, str] | None,
    where: Sequence[str],
) -> str:
    """`python -m analysis.report NAME` with every option that is not the usual one, and the sampling in any case."""
    said = f"python -m analysis.report {shlex.quote(name)} --bootstrap {draws.n} --seed {draws.seed} --level {level:g}"
    said += f" --unit {draws.unit}" if draws.unit != UNIT else ""
    said += recipe_arguments(recipe)
    said += f" --columns {shlex.quote(columns_text(columns))}" if columns else ""
    said += "".join(f" --{role} {shlex.quote(theirs)}" for role, theirs in (families or {}).items())
    return said + "".join(f" --where {shlex.quote(condition)}" for condition in where)


def recipe_arguments(recipe: Recipe) -> str:
    """The command line's options that choose this recipe; empty for the usual one."""
    for name, preset in PRESETS.items():
        if recipe == preset.recipe:
            return f" --preset {name}"
    usual, said = Recipe(), ""
    for field in ("curve", "x", "window", "weights", "scatter"):
        value = getattr(recipe, field)
        said += f" --{field} {value}" if value != getattr(usual, field) else ""
    if isinstance(recipe.noise_sd, Mapping):
        said += " --noise-sd " + ",".join(f"{family}={sd}" for family, sd in recipe.noise_sd.items())
    elif recipe.noise_sd is not None:
        said += f" --noise-sd {recipe.noise_sd}"
    return said + (" --log-loss" if recipe.log_loss else "")
