"""Experiment files: `get_config()` returns a locked ml_collections ConfigDict, and this turns it into frozen specs.

An experiment has a `run` section, the template of every run in the shape of `RunSpec`, and may have a `sweep` section,
which `isoflop.sweep` reads. Keys are checked twice: a locked ConfigDict refuses unknown ones, and so do the specs.
"""

import difflib
import json
import runpy
import traceback
from collections.abc import Iterable
from typing import Any, TypeVar

import ml_collections

from mdm_jax.files.storage import as_path
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import build, require, to_dict

T = TypeVar("T")


def default_run() -> ml_collections.ConfigDict:
    """Every field of RunSpec with its default, locked: a misspelt key raises where it is written."""
    return ml_collections.ConfigDict(to_dict(RunSpec())).lock()


def load_config(path: str) -> ml_collections.ConfigDict:
    """What `get_config()` of an experiment file returns. The file is Python and is run: load only files you trust.

    Raises:
        ValueError: there is no such file, it has no `get_config`, or it fails when it is run; its line is named.
    """
    file = as_path(path)
    require(
        file.is_file() and file.suffix == ".py", "config", path, "an experiment file, such as experiments/quickstart.py"
    )
    try:
        namespace = runpy.run_path(str(file), run_name="experiment")
        require("get_config" in namespace, "config", path, "a file that defines get_config()")
        config = namespace["get_config"]()
    except Exception as error:  # the file is the user's, who wants to know its line
        said = _said(error)
        message = " ".join(said.partition("Other fields present")[0].split())
        raise ValueError(f"{path}{_line(error, str(file))}: {message}{_suggestion(said)}") from error
    require(isinstance(config, ml_collections.ConfigDict), "get_config()", type(config).__name__, "a ConfigDict")
    return config


def _line(error: Exception, file: str) -> str:
    """` line 7`: where in the file the error arose; empty where it arose elsewhere."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}" if error.lineno else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    """The message itself: a locked ConfigDict wraps one error in another."""
    inner = error.args[0] if error.args else ""
    return _said(inner) if isinstance(inner, BaseException) else str(inner)


def _suggestion(said: str) -> str:
    """The line in which a locked ConfigDict names the key that was probably meant."""
    return "".join(f" {line.strip()}" for line in said.splitlines() if line.startswith("Did you mean"))


def override(config: ml_collections.ConfigDict, settings: Iterable[str]) -> ml_collections.ConfigDict:
    """A copy with `section.key=value` settings applied; values are JSON, anything else is a string.

    Raises:
        ValueError: a setting without `=`, or an unknown key (the nearest known one is suggested).
    """
    config = config.copy_and_resolve_references()
    for setting in settings:
        key, equals, text = setting.partition("=")
        require(bool(equals), "--set", setting, "of the form section.key=value")
        try:
            _assign(config, key, _setting(key, text))
        except (OverflowError, RecursionError) as error:  # an integer beyond every float, or a deep nest
            raise ValueError(f"--set {key}: not a value ({error})") from None
    return config


def _setting(key: str, text: str) -> Any:
    """The JSON value of a setting, or its text where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:  # a number of more digits than Python reads
        raise ValueError(f"--set {key}: not a value ({error})") from None


def _assign(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    section: Any = config
    done = ""
    parts = key.split(".")
    for part in parts:
        known = list(section.keys()) if isinstance(section, ml_collections.ConfigDict) else []
        if part not in known:
            near = difflib.get_close_matches(part, known, 1, 0.5)
            hint = f": did you mean {done}{near[0]}?" if near else f"; known are {', '.join(known) or 'none'}"
            raise ValueError(f"unknown key {done}{part}{hint}")
        if part is not parts[-1]:
            section, done = section[part], f"{done}{part}."
    old: Any = section[parts[-1]]
    if isinstance(old, ml_collections.ConfigDict) and not isinstance(value, dict):
        raise ValueError(f"--set {key}: a section and no value; its keys are {', '.join(old.keys())}")
    with section.ignore_type():
        section[parts[-1]] = value


def run_section(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The `run` section of an experiment, or the whole of a config that is nothing but a run."""
    section: Any = config.get("run", config)
    return section


def to_spec(cls: type[T], config: ml_collections.ConfigDict) -> T:
    """The dataclass `cls` (RunSpec, or a sweep's) that a ConfigDict describes.

    Raises:
        ValueError: an unknown key, a wrong type or a value out of bounds, each named.
    """
    return build(cls, config.to_dict())
