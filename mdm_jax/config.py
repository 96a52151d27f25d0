"""Experiment files: `get_config()` returns a locked ml_collections ConfigDict, which becomes frozen specs here.

The section `run` has the fields of `RunSpec` and is the template of every run. A section `sweep` is optional;
`isoflop.sweep` reads it. The locked ConfigDict and the specs both refuse unknown keys.
"""

import json
import runpy
import traceback
from collections.abc import Iterable
from typing import Any, TypeVar

import ml_collections

from mdm_jax.command import one_line, refuse_hidden
from mdm_jax.files.storage import as_path
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import build, require, to_dict, unknown_key

T = TypeVar("T")


def default_run() -> ml_collections.ConfigDict:
    """Every field of RunSpec with its default. The ConfigDict is locked: a misspelt key raises an error at its line."""
    return config_of(RunSpec())


def config_of(run: RunSpec) -> ml_collections.ConfigDict:
    """Every field of a run, in a locked ConfigDict."""
    return ml_collections.ConfigDict(to_dict(run)).lock()


def load_config(path: str) -> ml_collections.ConfigDict:
    """The result of `get_config()` in an experiment file. The file is run as Python: load only files you trust.

    Raises:
        ValueError: the file is absent, has no `get_config`, or fails when it is run; the message names the line.
    """
    file = as_path(path)
    require(
        file.is_file() and file.suffix == ".py", "config", path, "an experiment file, such as experiments/quickstart.py"
    )
    try:
        namespace = runpy.run_path(str(file), run_name="experiment")
        require("get_config" in namespace, "config", path, "a file that defines get_config()")
        config = namespace["get_config"]()
    except Exception as error:  # the user wants to know the line of the file
        full = _innermost_message(error)
        if isinstance(error, ImportError):
            for package in ("isoflop", "analysis", "experiments"):
                refuse_hidden(package)
        message = one_line(full.partition("Other fields present")[0])
        raise ValueError(f"{path}{_line_in_file(error, str(file))}: {message}{_suggestion(full)}") from error
    require(isinstance(config, ml_collections.ConfigDict), "get_config()", type(config).__name__, "a ConfigDict")
    return config


def _line_in_file(error: Exception, file: str) -> str:
    """` line 7`, the line of the file that raised the error; empty if another file raised it."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}" if error.lineno else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" line {lines[-1]}" if lines else ""


def _innermost_message(error: BaseException) -> str:
    """The message of the innermost error: a locked ConfigDict wraps one error in another."""
    inner = error.args[0] if error.args else ""
    return _innermost_message(inner) if isinstance(inner, BaseException) else str(inner)


def _suggestion(message: str) -> str:
    """The line of a locked ConfigDict's message that suggests another key; empty without one."""
    return "".join(f" {line.strip()}" for line in message.splitlines() if line.startswith("Did you mean"))


def override(config: ml_collections.ConfigDict, settings: Iterable[str]) -> ml_collections.ConfigDict:
    """A copy with `section.key=value` settings applied. A value that is not JSON is taken as a string.

    Raises:
        ValueError: a setting has no `=`, or its key is unknown (the nearest known key is suggested).
    """
    config = config.copy_and_resolve_references()
    for setting in settings:
        key, equals, text = setting.partition("=")
        require(bool(equals), "--set", setting, "of the form section.key=value")
        try:
            _assign(config, key, _setting_value(key, text))
        except (OverflowError, RecursionError) as error:  # an integer larger than any float, or deep nesting
            raise ValueError(f"--set {key}: not a value ({error})") from None
    return config


def _setting_value(key: str, text: str) -> Any:
    """The JSON value of a setting, or its text if that is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:  # a number with more digits than Python reads
        raise ValueError(f"--set {key}: not a value ({error})") from None


def _assign(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    section: Any = config
    done = ""
    parts = key.split(".")
    for part in parts:
        known = list(section.keys()) if isinstance(section, ml_collections.ConfigDict) else []
        if part not in known:
            raise unknown_key(done, part, known)
        if part is not parts[-1]:
            section, done = section[part], f"{done}{part}."
    old: Any = section[parts[-1]]
    if isinstance(old, ml_collections.ConfigDict) and not isinstance(value, dict):
        raise ValueError(f"--set {key}: a section, not a value; its keys are {', '.join(old.keys())}")
    with section.ignore_type():
        section[parts[-1]] = value


def to_spec(cls: type[T], config: ml_collections.ConfigDict) -> T:
    """The dataclass `cls` (RunSpec, or a sweep's) that a ConfigDict describes.

    Raises:
        ValueError: see `build`.
    """
    return build(cls, config.to_dict())


def load_run(path: str, settings: Iterable[str] = ()) -> RunSpec:
    """The run of an experiment file: its section `run`, or the whole ConfigDict if it has no such section.

    Raises:
        ValueError: see `load_config`, `override` and `to_spec`.
    """
    config: Any = override(load_config(path), settings)
    return to_spec(RunSpec, config.get("run", config))
