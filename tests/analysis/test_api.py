"""What `from analysis import ...` offers: complete, documented, and light until it is used."""

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import analysis

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(analysis.__all__)
FUNCTIONS = [name for name in NAMES if inspect.isfunction(inspect.unwrap(getattr(analysis, name)))]
PROMISED = {
    "read_runs", "fit_isoflop", "fit_power_law", "fit_saturating_power_law", "fit_parametric", "bootstrap",
    "compute_gap", "gap_sensitivity", "holdout", "check", "write_report", "IsoFlopFit", "PowerLaw", "ParametricFit",
    "GapCurve", "Finding",
}  # fmt: skip


def test_every_name_is_there_and_listed() -> None:
    assert set(NAMES) >= PROMISED
    assert analysis.__all__ == NAMES
    assert dir(analysis) == sorted(NAMES)
    assert set(analysis.MODULES) <= set(NAMES)
    modules = {module.name for module in pkgutil.walk_packages(analysis.__path__, "analysis.")}
    assert {f"analysis.{module}" for module in analysis.MODULES.values()} <= modules
    with pytest.raises(AttributeError, match="no attribute 'plot_everything'"):
        _ = analysis.plot_everything  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_explains_each_argument(name: str) -> None:
    function = inspect.unwrap(getattr(analysis, name))
    told = inspect.getdoc(function) or ""
    arguments = list(inspect.signature(function).parameters)
    if len(arguments) == 1 or arguments == ["arm", "mdm"]:
        assert told
        return
    lines = told.split("Args:")[1].split("Raises:")[0].splitlines()
    entries = [line.split(":")[0].strip() for line in lines if line.startswith("    ") and line[4] != " "]
    assert entries == arguments


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(FUNCTIONS)))
def test_help_of_a_result_says_what_it_holds(name: str) -> None:
    kind = getattr(analysis, name)
    assert inspect.isclass(kind)
    assert inspect.getdoc(kind)
    for member, value in vars(kind).items():
        if isinstance(value, property) and not member.startswith("_"):
            assert value.__doc__, f"{name}.{member}"


def test_importing_is_light_and_quick() -> None:
    """It takes under a second of CPU time, which a busy machine does not change. Only a plot loads matplotlib."""
    code = "import resource, sys, analysis; r = resource.getrusage(resource.RUSAGE_SELF); "
    code += "print(r.ru_utime + r.ru_stime, *{'jax', 'scipy', 'matplotlib'} & set(sys.modules)); "
    code += "analysis.plot_gap; print('matplotlib' in sys.modules, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert float(first) < 1.0
    assert second == "True False"
