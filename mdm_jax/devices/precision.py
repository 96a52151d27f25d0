"""Matrix products: what they are summed in, and how exactly products of float32 numbers are computed."""

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from mdm_jax.spec import ComputeDtype, ModelSpec


def product_precision(model: ModelSpec) -> AbstractContextManager:
    """The precision of every product that is traced inside: the model's, whatever the user's environment says.

    Forward and backward pass have to be traced inside it, as `train_step` and the evaluation do. Products of bfloat16
    numbers have one precision, and nothing slower is asked for them.
    """
    exact = model.compute_dtype is ComputeDtype.FLOAT32
    return jax.default_matmul_precision(model.float32_precision.value if exact else "default")


def sum_in_float32(equation: str, x: Array, y: Array, out: PartitionSpec | None = None) -> Array:
    """`einsum(equation, x, y)`, summed and returned in float32.

    XLA:CPU has no product of bfloat16 numbers that returns float32, so there the operands are converted first: float32
    holds the product of two bfloat16 numbers exactly. Elsewhere the operands stay as they are.

    Args:
        out: layout of the result, where the operands do not settle it.
    """
    if _platform() == "cpu":
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32, out_sharding=out)


def _platform() -> str:
    """The platform of the devices that the program is compiled for: those of the ambient mesh, or else jax's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()
