"""Converts nested plain values to frozen dataclasses and back. Unknown keys and wrong types are refused."""

import dataclasses
import difflib
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

PLAIN = frozenset({bool, int, float, str, types.NoneType})
"""Types of the values that JSON has as they are."""
UNLESS_DEFAULT = "unless default"
"""Value of a field's metadata `hashed`: the field is hashed unless it has its default."""
NOT_HASHED = {"hashed": False}
"""Marks a field that does not change the result of a run."""
HASHED_IF_SET = {"hashed": UNLESS_DEFAULT}
"""Marks a field that a later version added. The field is hashed only when it is set: old run_ids stay the same."""


def require(ok: bool, name: str, value: object, bound: str) -> None:
    """Raises ValueError with the field's name, its value and what it must be."""
    if not ok:
        raise ValueError(f"{name} = {value!r}: must be {bound}")


def unknown_key(section: str, key: str, known: list[str]) -> ValueError:
    """The error for an unknown key. It suggests the nearest known key, or lists all; `section` ends in a dot."""
    near = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f": did you mean {section}{near[0]}?" if near else f"; known are {', '.join(known) or 'none'}"
    return ValueError(f"unknown key {section}{key}{hint}")


def to_dict(value: Any, hashed_only: bool = False) -> Any:
    """Plain JSON types for a spec (nested dataclasses and enums).

    Args:
        hashed_only: leave out the fields that are not hashed (see the metadata `hashed`).
    """
    if type(value) in PLAIN:
        return value
    if dataclasses.is_dataclass(value):
        keep = [f for f in dataclasses.fields(value) if not hashed_only or _is_hashed(f, getattr(value, f.name))]
        return {f.name: to_dict(getattr(value, f.name), hashed_only) for f in keep}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_dict(v, hashed_only) for v in value]
    return value


def _is_hashed(field: dataclasses.Field[Any], value: Any) -> bool:
    rule = field.metadata.get("hashed", True)
    return value != field.default if rule == UNLESS_DEFAULT else rule


def build(cls: type[T], tree: Mapping[str, Any], where: str = "") -> T:
    """Instance of the dataclass `cls` from nested mappings; absent fields keep their defaults.

    Raises:
        ValueError: an unknown key (the nearest known one is suggested), a wrong type, or a value out of bounds.
    """
    kinds = _kinds(cls)
    for key in tree:
        if key not in kinds:
            raise unknown_key(where, str(key), list(kinds))
    return cls(**{key: _converted(kinds[key], value, where + key) for key, value in tree.items()})


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields by name; a plan has many thousand fields, and looking a type up is slow."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _converted(kind: Any, value: Any, name: str) -> Any:
    """`value` as `kind`: a dataclass, an enum, a number, a string, a tuple or dict of these, or any of them or None."""
    if kind in PLAIN:
        return _plain(kind, value, name)
    if dataclasses.is_dataclass(kind):
        require(isinstance(value, Mapping), name, value, "a mapping")
        return build(kind, value, name + ".")  # type: ignore[arg-type]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _converted(args[0], value, name)
    if origin is tuple:
        require(isinstance(value, list | tuple), name, value, "a list")
        return tuple(_converted(args[0], v, f"{name}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        require(isinstance(value, Mapping), name, value, "a mapping")
        return {str(key): _converted(args[1], v, f"{name}.{key}") for key, v in value.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        known = [m.value for m in kind]
        require(value in known, name, value, f"one of {', '.join(map(str, known))}")
        return kind(value)
    return _plain(kind, value, name)


def _plain(kind: type, value: Any, name: str) -> Any:
    """`value` as a number, a string or a bool; an integer may stand for a float."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) < 10**308, name, f"an integer of {value.bit_length()} bits", "below 1e308")
        value = float(value)
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    require(right, name, value, f"of type {kind.__name__}")
    if kind is float:
        require(math.isfinite(value), name, value, "finite")
    return value
