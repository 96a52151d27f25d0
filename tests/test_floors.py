"""The project keeps its own rules, and the checker that says so can fail."""

import re
import subprocess
import sys
from pathlib import Path

import floors
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Forbidden words are put together here, so that this file does not hold them.
LATER = "TO" + "DO"
PICKLE = "pick" + "le"
REGISTRY = "https://py" + "pi.org/simple"
MACHINE = "/ro" + "ot/sweep"

LOADS_NO_JAX = """
import importlib, importlib.util, pkgutil, sys
for name in sys.argv[1:]:
    if importlib.util.find_spec(name.partition(".")[0]) is None or importlib.util.find_spec(name) is None:
        continue
    package = importlib.import_module(name)
    whole = hasattr(package, "__path__") and name != "mdm_jax"
    parts = pkgutil.walk_packages(package.__path__, name + ".") if whole else ()
    for part in parts:
        if "notebooks" not in part.name and not part.name.endswith("__main__"):
            importlib.import_module(part.name)
print(*sorted({"jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow"} & set(sys.modules)))
"""


def project_files() -> dict[str, str]:
    """The text files that git tracks or would track."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    contents = {name: (ROOT / name).read_bytes() for name in names if name and (ROOT / name).is_file()}
    return {name: raw.decode(errors="replace") for name, raw in contents.items() if b"\0" not in raw}


def test_the_project_keeps_its_rules() -> None:
    files = project_files()
    assert {"pyproject.toml", "Makefile", "tests/support/floors.py"} <= set(files)
    findings = floors.check_project(files)
    assert not findings, "\n" + "\n".join(findings)


def test_the_table_of_floors_names_what_is_there() -> None:
    """CONTRIBUTING.md, the rules and the folders say the same."""
    rows = [line.split("|") for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    places = {floor.strip(): names_of(where.replace("every `__main__.py`", "")) for _, floor, where, *_ in rows}
    inside = {"facts": floors.FACTS, "parts": floors.PARTS, "assembly": floors.ASSEMBLY, "doors": floors.DOORS}
    inside["tasks"] = floors.TASKS
    for floor, names in inside.items():
        assert {Path(name).stem for name in places[floor]} == names
    assert {name.rstrip("/") for name in places["beside"]} == floors.BESIDE
    assert not [name for names in places.values() for name in names if not (ROOT / name).exists()]


def names_of(cell: str) -> list[str]:
    """The files and folders in a cell of the table, `{a,b}` taken apart."""
    found = []
    for name in re.findall("`(.*?)`", cell):
        before, _, rest = name.partition("{")
        braced, _, after = rest.partition("}")
        found += [before + one + after for one in braced.split(",")]
    return found


def test_facts_planner_and_analysis_load_no_jax() -> None:
    facts = sorted(floors.FACTS | floors.FACTS_ELSEWHERE)
    names = ["isoflop", "analysis", "mdm_jax", *(f"mdm_jax.{name}" for name in facts)]
    done = subprocess.run([sys.executable, "-c", LOADS_NO_JAX, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


BROKEN = [
    ("mdm_jax/spec/run_spec.py", "import jax", "facts imports jax"),
    ("mdm_jax/spec/run_spec.py", "from mdm_jax.model import layers", "facts imports mdm_jax.model.layers"),
    ("mdm_jax/__init__.py", "from mdm_jax.train.loop import fit", "facts imports mdm_jax.train"),
    ("mdm_jax/__init__.py", "from .train import loop", "facts imports mdm_jax.train"),
    ("mdm_jax/__init__.py", "from mdm_jax.trained.load import load", "facts imports mdm_jax.trained.load.load"),
    ("mdm_jax/interop/smdm/weights.py", "from isoflop import ladder", "interop imports isoflop.ladder"),
    ("mdm_jax/interop/smdm/weights.py", "from mdm_jax import load", "interop imports mdm_jax.load"),
    ("mdm_jax/spec/counting.py", "import ml_collections", "only mdm_jax/config.py"),
    ("mdm_jax/spec/counting.py", "import pandas", "free of it"),
    ("mdm_jax/files/storage.py", "import numpy", "free of it"),
    ("mdm_jax/data/manifest.py", "from etils import epath", "only mdm_jax/files/storage.py"),
    ("mdm_jax/files/results.py", "def f():\n    import jax", "facts imports jax"),
    ("mdm_jax/model/layers.py", "from mdm_jax.objectives import mdm", "model imports mdm_jax.objectives"),
    ("mdm_jax/model/layers.py", "from ..objectives import mdm", "model imports mdm_jax.objectives"),
    ("mdm_jax/model/layers.py", "def f():\n    from mdm_jax.data import store", "model imports mdm_jax.data"),
    ("mdm_jax/objectives/mdm.py", "from mdm_jax.train import optim", "objectives imports mdm_jax.train.optim"),
    ("mdm_jax/files/lock.py", "from mdm_jax.train import state", "facts imports mdm_jax.train"),
    ("mdm_jax/devices/sharding.py", "from mdm_jax.model import layers", "devices imports mdm_jax.model"),
    ("mdm_jax/train/loop.py", "from mdm_jax import main", "train imports mdm_jax.main"),
    ("mdm_jax/train/loop.py", "from mdm_jax.evaluate import nelbo", "train imports mdm_jax.evaluate"),
    ("mdm_jax/train/loop.py", "import isoflop.ladder", "train imports isoflop.ladder"),
    ("mdm_jax/train/loop.py", "import orbax.checkpoint as ocp", "only mdm_jax/train/checkpoint.py"),
    ("mdm_jax/train/loop.py", "import rich", "doors and command lines print"),
    ("mdm_jax/train/loop.py", "from mdm_jax.run.execute import execute", "train imports mdm_jax.run"),
    ("mdm_jax/spec/validation.py", "import jax", "facts imports jax"),
    ("mdm_jax/main.py", "import analysis", "doors imports analysis"),
    ("mdm_jax/main.py", "from experiments import quickstart", "doors imports experiments"),
    ("mdm_jax/data/sources/tfds.py", "import tensorflow as tf", "nothing here may need it"),
    ("mdm_jax/data/sources/tfds.py", "from mdm_jax import surprise", "has no floor"),
    ("mdm_jax/surprise.py", "", "has no floor"),
    ("setup.py", "", "has no floor"),
    ("isoflop/plan/__main__.py", "import jax", "isoflop imports jax"),
    ("isoflop/plan/__main__.py", "from mdm_jax.train import step", "isoflop imports mdm_jax.train"),
    ("isoflop/plan/__main__.py", "def f():\n    from mdm_jax.train import step", "isoflop imports mdm_jax.train"),
    ("isoflop/plan/__main__.py", "from mdm_jax.devices import sharding", "isoflop imports mdm_jax.devices.sharding"),
    (
        "isoflop/plan/__main__.py",
        "import importlib\nimportlib.import_module('mdm_jax.train')",
        "isoflop imports mdm_jax.train",
    ),
    ("isoflop/plan/__main__.py", "def f():\n    import analysis", "isoflop imports analysis"),
    ("isoflop/sweep.py", "import rich", "doors and command lines print"),
    ("isoflop/preflight/__main__.py", "from mdm_jax.train import step", "isoflop imports mdm_jax.train"),
    ("isoflop/preflight/__main__.py", "def f():\n    import mdm_jax.model.layers", "isoflop imports mdm_jax.model"),
    ("isoflop/refine/evidence.py", "import analysis", "isoflop imports analysis"),
    ("analysis/runs/load.py", "import isoflop", "analysis imports isoflop"),
    ("analysis/runs/load.py", "import jax", "analysis imports jax"),
    ("analysis/runs/load.py", "def f():\n    import jax", "analysis imports jax"),
    ("analysis/runs/load.py", "def f():\n    import flax", "analysis imports flax"),
    ("analysis/runs/load.py", "from tests import conftest", "analysis imports tests"),
    ("analysis/notebooks/gap.py", "def f(): pass", "a notebook defines f"),
    ("mdm_jax/model/layers.py", 'spec = P("data", None)', "only mdm_jax/devices/sharding.py names axes"),
    ("mdm_jax/model/layers.py", 'spec = jax.P(None, ("model", "data"))', "'data' and 'model'"),
    ("mdm_jax/train/step.py", 'jax.sharding.PartitionSpec("model")', "names axes"),
    ("mdm_jax/train/step.py", 'jax.lax.psum(x, axis_name="data")', "names axes"),
    ("mdm_jax/spec/run_spec.py", "\n" * 401, "401 lines"),
    ("mdm_jax/spec/run_spec.py", "def f(:", "does not parse"),
    ("mdm_jax/utils.py", "", "'utils' says nothing"),
    ("mdm_jax/model/common/layers.py", "", "'common' says nothing"),
    ("tests/loop_helpers.py", "", "'loop_helpers' says nothing"),
    ("isoflop/v2/plan.py", "", "'v2' says nothing"),
    ("mdm_jax/spec/run_spec.py", f"# {LATER}: later", LATER),
    ("README.md", f"{LATER} later", LATER),
    ("tests/test_x.py", "ev" + "al('1')", "no code from strings"),
    ("tests/test_x.py", "ex" + "ec('1')", "no code from strings"),
    ("tests/test_x.py", f"import {PICKLE}", "nothing here is pickled"),
    ("tests/test_x.py", f"from {PICKLE} import load", "nothing here is pickled"),
    ("tests/test_x.py", f"frame.to_{PICKLE}(path)", "nothing here is pickled"),
    ("tests/test_x.py", f"np.load(path, allow_{PICKLE}=True)", "nothing here is pickled"),
    ("docs/install.md", f"pip install -i {REGISTRY} jax", "registry"),
    ("docs/install.md", f"cd {MACHINE}", "one machine"),
]


@pytest.mark.parametrize(("path", "source", "expected"), BROKEN)
def test_a_broken_rule_is_found(path: str, source: str, expected: str) -> None:
    findings = floors.check_project({path: source})
    assert any(expected in finding and finding.startswith(f"{path}:") for finding in findings), findings


KEPT = [
    (
        "mdm_jax/spec/run_spec.py",
        "from __future__ import annotations\nimport json\nimport numpy as np\nfrom mdm_jax.files import storage",
    ),
    ("mdm_jax/config.py", "import ml_collections\nfrom mdm_jax.spec import RunSpec"),
    ("mdm_jax/files/storage.py", "from etils import epath"),
    ("mdm_jax/devices/sharding.py", 'import jax\nspec = jax.sharding.PartitionSpec("data", "model")'),
    (
        "mdm_jax/model/layers.py",
        "import jax\nfrom . import attention\nfrom mdm_jax.devices.sharding import BATCH\nspec = P(None, BATCH)",
    ),
    ("mdm_jax/train/checkpoint.py", "import orbax.checkpoint as ocp"),
    ("mdm_jax/data/prepare.py", "import rich\nif __name__ == '__main__':\n    main()"),
    (
        "mdm_jax/train/loop.py",
        "from mdm_jax import __version__\nfrom . import checkpoint\nfrom mdm_jax.model.transformer import Transformer",
    ),
    (
        "mdm_jax/main.py",
        "import rich\ndef main():\n    from mdm_jax.train import loop\n    from mdm_jax.evaluate import nelbo",
    ),
    ("mdm_jax/__init__.py", "def f():\n    from mdm_jax.trained.load import load"),
    ("mdm_jax/interop/smdm/weights.py", "def f():\n    from isoflop.ladder import SMDM"),
    ("mdm_jax/interop/smdm/__main__.py", "from mdm_jax import load"),
    ("isoflop/preflight/__main__.py", "def check():\n    from mdm_jax.train import step"),
    ("isoflop/sweep.py", "import ml_collections"),
    ("isoflop/refine/evidence.py", "def propose():\n    import analysis"),
    ("isoflop/table.py", "def show():\n    import rich.table"),
    ("isoflop/__main__.py", "import rich\nfrom isoflop import plan"),
    ("analysis/runs/load.py", "import pandas as pd\nfrom mdm_jax.files.results import RunRow"),
    ("analysis/notebooks/gap.py", "import jax\nfrom analysis import fit_isoflop"),
    ("experiments/quickstart.py", "import jax\nimport isoflop\nfrom experiments import base"),
    ("tests/test_x.py", 'np.load(path, allow_pickle=False)\nP("data")\n# evaluate("x") and metadata("model")'),
    ("README.md", "Read experiments/quickstart.py; results go to runs/work, or gs://bucket/root.json."),
]


@pytest.mark.parametrize(("path", "source"), KEPT)
def test_a_kept_rule_is_silent(path: str, source: str) -> None:
    assert floors.check_project({path: source}) == []
