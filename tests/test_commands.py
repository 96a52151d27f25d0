"""Each console script is the command of its module, and a user's own files of the same names do not stop it."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def main_of(script):
    module, _, name = SCRIPTS[script].partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_console_script_answers_help_under_the_name_that_was_typed(script, monkeypatch, capsys):
    module = SCRIPTS[script].partition(":")[0].removesuffix(".__main__")
    for typed, shown in ((f"/usr/bin/{script}", script), ("/lib/__main__.py", f"python -m {module}")):
        monkeypatch.setattr(sys, "argv", [typed, "--help"])
        with pytest.raises(SystemExit) as end:
            main_of(script)()
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {shown} [-h]")


HEAVY = {"jax", "flax", "orbax", "scipy", "pandas", "matplotlib"}
"""Packages that take from .2 s to 2 s to import."""


def test_help_and_the_first_error_of_a_command_load_nothing_heavy():
    modules = sorted({place.partition(":")[0] for place in SCRIPTS.values()} | {"mdm_jax", "analysis", "isoflop"})
    asks = "for m in modules: getattr(importlib.import_module(m), 'parser', getattr(sys.modules[m], '_parser', str))()"
    code = f"import importlib, sys; modules = {modules}\n{asks}\nprint(*sorted({HEAVY} & set(sys.modules)))"
    assert typed(ROOT, "-c", code) == (0, "\n", "")


def test_the_readme_names_every_console_script():
    readme = (ROOT / "README.md").read_text()
    for script, place in SCRIPTS.items():
        module = place.partition(":")[0].removesuffix(".__main__")
        row = next(line for line in readme.splitlines() if f"`{script}`" in line)
        assert module in row


def test_a_console_script_says_a_wrong_flag_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mdm-prepare", "--corpsu", "text"])
    with pytest.raises(SystemExit) as end:
        main_of("mdm-prepare")()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == "mdm_jax: unrecognized arguments: --corpsu text (--help lists the flags)\n"


@pytest.fixture(scope="module")
def folder_of_a_stranger(tmp_path_factory):
    """A user's project, whose files have the names of our packages, and a console script in another folder."""
    place = tmp_path_factory.mktemp("stranger")
    for name in ("analysis", "isoflop", "experiments"):
        (place / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of a stranger was run')\n")
    (place / "bin").mkdir()
    module, _, name = SCRIPTS["mdm-report"].partition(":")
    (place / "bin" / "mdm-report").write_text(f"import sys\nfrom {module} import {name}\nsys.exit({name}())\n")
    return place


def typed(folder, *words):
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("module", "words", "hidden"),
    [("isoflop.refine", ["runs"], "analysis"), ("mdm_jax.data.prepare", ["--config", "experiment.py"], "isoflop")],
)
def test_a_users_file_that_hides_a_package_is_named(tmp_path, module, words, hidden):
    (tmp_path / f"{hidden}.py").write_text("")
    (tmp_path / "experiment.py").write_text("from isoflop.sweep import default_sweep\n")
    code, _, said = typed(tmp_path, "-m", module, *words)
    assert code == 1
    assert f"{tmp_path / hidden}.py hides the package {hidden!r} of mdm-jax: rename it, start from another" in said
    assert said.count("\n") == 1


def test_console_scripts_and_safe_paths_pass_over_a_users_files(folder_of_a_stranger):
    for words in (["bin/mdm-report"], ["-P", "-m", "analysis.report"]):
        code, out, said = typed(folder_of_a_stranger, *words, "--help")
        assert (code, said) == (0, "")
        assert "report.html" in out
    assert typed(folder_of_a_stranger, "-m", "analysis.report", "--help")[0] == 1, "the files are in the way"
