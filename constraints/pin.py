"""Writes constraints/pyX.Y.txt: the versions that are tested together on the running Python.

The file pins what this environment holds (so what the tests just ran with), and for the extras that are not installed
here (TPU, CUDA) what pip resolves beside those versions. Run it by `make constraints`, after the tests are green.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALLERS = {"pip", "setuptools", "wheel"}
HEADER = """\
# Versions tested together on Python {python}. Made by `make constraints` from the environment in which the tests ran;
# packages of the extras that were not installed there are what pip resolved beside it. Not for editing by hand:
# change .venv with pip, run `make test`, then `make constraints`.
"""


def canonical(name: str) -> str:
    """The name of a distribution in its normal form, as in the packaging standard PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(project: str) -> dict[str, str]:
    """The version of each distribution installed here, by canonical name, without the project and the installers."""
    found = {canonical(dist.name): dist.version for dist in metadata.distributions()}
    return {name: version for name, version in found.items() if name not in INSTALLERS | {canonical(project)}}


def resolve(requirements: list[str], pins: dict[str, str]) -> dict[str, str]:
    """The versions that pip would install for requirements beside pins, by canonical name. Installs nothing.

    Raises:
        RuntimeError: pip finds no consistent set; its message says why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        constraints, report = Path(scratch, "pins.txt"), Path(scratch, "report.json")
        constraints.write_text(lines(pins))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--constraint", str(constraints), "--report", str(report), *requirements]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pip could not resolve the extras beside what is installed:\n{done.stderr}")
        entries = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {canonical(entry["name"]): entry["version"] for entry in entries}


def lines(pins: dict[str, str]) -> str:
    """One `name==version` line for each pin, sorted by name."""
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def main() -> None:
    """Writes the constraints file of the running Python, and prints its path and length."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = installed(project["name"])
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    pins = {**here, **resolve(wanted, here)}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = ROOT / "constraints" / f"py{python}.txt"
    target.write_text(HEADER.format(python=python) + lines(pins))
    print(f"{target.relative_to(ROOT)}: {len(pins)} pins, {len(here)} of them installed here")


if __name__ == "__main__":
    main()
