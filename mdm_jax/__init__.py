"""Scaling laws of masked diffusion language models against autoregressive ones, in JAX.

Importing the package costs nothing: it loads neither jax nor any part of itself. `load` opens a trained model, and
loads jax when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm_jax.trained.load import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from mdm_jax.trained.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
