"""Safetensors files, read with checks. Nobody vouches for their content.

The library checks the header: its length, and that the tensors' bytes follow each other and fill the file. A tensor
therefore needs no more memory than its file has bytes, or twice as much for 16-bit numbers. Names, shapes and number
formats are checked here, before a weight is read.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from mdm_jax.files.storage import is_file, is_local
from mdm_jax.interop.model_file import Shapes, Weights
from mdm_jax.spec.validation import require

T = TypeVar("T")
DTYPES = {"F32", "F16", "BF16"}
"""Formats of numbers that float32 holds exactly."""


def read_tensors(
    paths: Sequence[str | os.PathLike[str]], examine: Callable[[Shapes, dict[str, str]], T]
) -> tuple[T, Weights]:
    """What `examine` returns, and all tensors of the files together, as float32.

    Args:
        paths: files with different tensors.
        examine: gets the shapes of all tensors and the metadata, and raises ValueError if the files hold no model. It
            is called before a weight is read.

    Raises:
        ValueError: a file is absent, not on a local disk, cut short or no safetensors file; two files have a tensor of
            the same name; or a tensor (named) has a number format that float32 does not hold, or is not finite; or
            `examine` raised it.
        OSError: a file cannot be read now.
    """
    with contextlib.ExitStack() as stack:
        opened = [(path, _open(stack, path)) for path in paths]
        entries: dict[str, tuple[str | os.PathLike[str], Any]] = {}
        metadata: dict[str, str] = {}
        for path, file in opened:
            metadata |= file.metadata() or {}
            for name in file.keys():  # noqa: SIM118
                require(name not in entries, f"{path}: {name}", "also in another file", "in one file only")
                entries[name] = path, file.get_slice(name)
        examined = examine({name: tuple(entry.get_shape()) for name, (_, entry) in entries.items()}, metadata)
        for name, (path, entry) in entries.items():
            held = entry.get_dtype()
            require(held in DTYPES, f"{path}: {name}: dtype", held, f"one of {', '.join(sorted(DTYPES))}")
        tensors = {name: file.get_tensor(name).astype(np.float32) for _, file in opened for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        where = f"{entries[name][0]}: {name}"
        require(bool(np.isfinite(tensor).all()), where, "not finite", "free of NaN and infinity")
    return examined, tensors


def check_shapes(path: str | os.PathLike[str], shapes: Shapes, wanted: Shapes) -> None:
    """Returns if the shapes are the wanted ones.

    Raises:
        ValueError: a tensor (named) is absent, unknown or of another shape.
    """
    for name in sorted(shapes.keys() | wanted.keys()):
        there, here = (list(of[name]) if name in of else "absent" for of in (shapes, wanted))
        require(there == here, f"{path}: {name}: shape", there, f"{here}, as the model's shape has it")


def _open(stack: contextlib.ExitStack, path: str | os.PathLike[str]) -> Any:
    require(is_local(path), "file of weights", str(path), "on a local disk: copy it there")
    if not is_file(path):
        raise ValueError(f"{path}: no such file")
    try:
        return stack.enter_context(safe_open(os.fspath(path), "numpy"))
    except SafetensorError as error:
        remedy = "pickled weights are never opened"
        raise ValueError(f"{path}: no safetensors file, or cut short ({error}); {remedy}") from None
