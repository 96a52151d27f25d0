"""Stops the search for a TPU on a machine without one, because an installed libtpu would print ten lines of errors."""

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import jax

TPU_DEVICES = ("accel*", "vfio/[0-9]*")
"""Names of a TPU's device files in /dev."""
SET_BY_IMPORT = {"TPU_SKIP_MDS_QUERY", "TPU_LIBRARY_PATH"}
"""Variables that the imports of jax and libtpu set themselves."""


def skip_absent_tpu() -> None:
    """Makes jax use only CPUs if libtpu is installed and there is no sign of a TPU or another accelerator.

    Call it after the import of jax, and before jax looks for devices. These are signs, and then nothing changes:

    - `jax_platforms` is set: by jax, whose import finds TPU chips, or by the user with `JAX_PLATFORMS`;
    - the user has set a `TPU_` variable;
    - a TPU's device file exists;
    - a plugin of jax is installed, such as CUDA's.
    """
    asked = jax.config.jax_platforms is not None or any(  # type: ignore[attr-defined]  # jax's settings have no types
        name.startswith("TPU_") and name not in SET_BY_IMPORT for name in os.environ
    )
    there = any(file for pattern in TPU_DEVICES for file in Path("/dev").glob(pattern))
    plugins = find_spec("jax_plugins") is not None or bool(entry_points(group="jax_plugins"))
    if find_spec("libtpu") is not None and not (asked or there or plugins):
        jax.config.update("jax_platforms", "cpu")
