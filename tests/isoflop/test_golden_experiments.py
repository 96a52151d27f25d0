import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections
import pytest

from isoflop.plan.__main__ import plan_config
from isoflop.sweep import default_sweep
from mdm_jax.config import default_run, load_config, override
from mdm_jax.spec import RunSpec
from mdm_jax.spec.counting import count_parameters

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path for path in (ROOT / "experiments").glob("*.py") if path.name != "__init__.py")
GOLDEN = Path(__file__).parents[1] / "golden" / "experiments"

RENEW = f"""
What {{0}} plans is no longer what tests/golden/experiments/{{0}}.txt holds: a default, a recipe, a rule or the file
itself has changed, and so have the runs of everybody who plans it. If you did not mean to, this is a bug. If you did,
say so in CHANGELOG.md and write the file anew: `python tests/isoflop/{Path(__file__).name}`.
"""
MISSING = f"tests/golden/experiments/{{0}}.txt is not there: `python tests/isoflop/{Path(__file__).name}` writes it"


def flattened(tree: Any, name: str = "") -> Iterator[str]:
    """`section.key = value` lines of a config, sorted by key; a list of sections is indexed, other values are JSON."""
    if isinstance(tree, dict | ml_collections.ConfigDict):
        for key in sorted(tree.keys()):
            yield from flattened(tree[key], f"{name}.{key}" if name else key)
    elif isinstance(tree, list | tuple) and tree and isinstance(tree[0], dict):
        for i, item in enumerate(tree):
            yield f"{name}[{i}] = {json.dumps(item)}"
    else:
        yield f"{name} = {json.dumps(tree)}"


def line(run: RunSpec) -> str:
    """One run, by what decides it."""
    n, cell, schedule = count_parameters(run.model).non_embedding, run.cell, run.schedule
    place = (
        cell.group or "-",
        run.family.value,
        f"{cell.budget:g}" if cell.budget else "trunk" if cell.segment else "none",
        cell.size,
    )
    numbers = {
        "N": n,
        "D": run.train_tokens,
        "steps": schedule.steps,
        "batch": run.optim.global_batch,
        "lr": f"{run.optim.lr_peak:.9g}",
        "warmup": schedule.warmup_steps,
        "seed": run.seed,
    }
    parent = [f"from={cell.parent_run_id}"] if cell.parent_run_id else []
    return " ".join([*place, *(f"{name}={value}" for name, value in numbers.items()), *parent, run.run_id])


def dump(path: Path) -> str:
    """The experiment's config and its plan on a machine where no corpus is prepared."""
    config = load_config(str(path))
    planned = plan_config(override(config, ["run.data.directory=nothing-prepared"]))
    return "\n".join([*flattened(config), "", *(line(run) for run in planned.runs), ""])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_golden_experiments(path: Path) -> None:
    golden = GOLDEN / f"{path.stem}.txt"
    assert golden.is_file(), MISSING.format(path.stem)
    then, defaults = golden.read_text().splitlines(), set(flattened({"run": default_run(), "sweep": default_sweep()}))
    # A field that is new and at its default is no drift: it is left out of the hashes, too.
    now = [x for x in dump(path).splitlines() if x in set(then) or x not in defaults]
    changed = [f"- {x}" for x in then if x not in set(now)] + [f"+ {x}" for x in now if x not in set(then)]
    assert now == then, RENEW.format(path.stem) + "\n".join(changed[:40])


def test_every_golden_has_its_experiment() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} <= {path.stem for path in EXPERIMENTS}


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for experiment in EXPERIMENTS:
        (GOLDEN / f"{experiment.stem}.txt").write_text(dump(experiment))
