"""No search for a TPU on a machine that has none: libtpu, where it is installed, would print ten lines of errors."""

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import jax

TPU_DEVICES = ("accel*", "vfio/[0-9]*")
"""Names of a TPU's device files in /dev."""
SET_BY_IMPORT = {"TPU_SKIP_MDS_QUERY", "TPU_LIBRARY_PATH"}
"""What the imports of jax and libtpu set themselves."""


def skip_absent_tpu() -> None:
    """Has jax use CPUs alone where libtpu is installed and nothing speaks for a TPU or another accelerator.

    jax must be imported and have no devices yet. At its import it looks for TPU chips, and with some it sets
    `jax_platforms` itself. Nothing changes there, nor where the user has set `JAX_PLATFORMS` or a `TPU_` variable,
    where a TPU's device file exists, or where a plugin of jax is installed, such as CUDA's. A real TPU's errors stay.
    """
    asked = jax.config.jax_platforms is not None or any(  # type: ignore[attr-defined]  # jax's settings have no types
        name.startswith("TPU_") and name not in SET_BY_IMPORT for name in os.environ
    )
    there = any(file for pattern in TPU_DEVICES for file in Path("/dev").glob(pattern))
    plugins = find_spec("jax_plugins") is not None or bool(entry_points(group="jax_plugins"))
    if find_spec("libtpu") is not None and not (asked or there or plugins):
        jax.config.update("jax_platforms", "cpu")
