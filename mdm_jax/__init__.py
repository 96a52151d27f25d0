"""Scaling laws of masked diffusion language models against autoregressive ones, in JAX.

Importing the package costs nothing: it loads neither jax nor any part of itself.
"""

__version__ = "0.1.0"
