"""Matrix products: the number format of their sums, the precision of float32 products, and ties up to rounding."""

import re
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from mdm_jax.spec import ComputeDtype, Float32Precision, ModelSpec

EXACT_TIE_NATS, ROUGH_TIE_NATS = 1e-4, 1e-2
"""Differences in nats that count as equal, with products in float32 and with others."""


def product_precision(model: ModelSpec) -> AbstractContextManager:
    """Context in which every product is traced with the model's precision, whatever the user's environment sets.

    Trace both the forward and the backward pass inside it. Products of bfloat16 numbers get jax's default, the fastest,
    because they have only one precision.
    """
    exact = model.compute_dtype is ComputeDtype.FLOAT32
    return jax.default_matmul_precision(model.float32_precision.value if exact else "default")


def tolerance_nats(model: ModelSpec) -> float:
    """Predictions that differ by no more nats are equal: rounding may not choose among them."""
    float32 = model.compute_dtype is ComputeDtype.FLOAT32 and model.float32_precision is Float32Precision.HIGHEST
    return EXACT_TIE_NATS if float32 else ROUGH_TIE_NATS


def lowest_up_to_rounding(
    score_xL: Float[Array, "*x L"], allowed_xL: Bool[Array, "*x L"], tolerance: float
) -> Bool[Array, "*x L"]:
    """The allowed positions whose score is above the lowest allowed one by no more than the tolerance.

    Equal scores are common: a row that is all MASK has the same prediction at every position, because attention then
    averages equal values. Rounding must not choose among them.
    """
    least_x1 = jnp.where(allowed_xL, score_xL, jnp.inf).min(-1, keepdims=True)
    # NaN is not greater than anything, so that weights with NaN reveal tokens too, and their NaN is seen.
    return allowed_xL & ~(score_xL > least_x1 + tolerance)


def sum_in_float32(equation: str, x: Array, y: Array, out: PartitionSpec | None = None) -> Array:
    """`einsum(equation, x, y)`, summed and returned in float32.

    XLA:CPU has no product of bfloat16 numbers that returns float32, so there the operands are converted first: float32
    holds the product of two bfloat16 numbers exactly. It also computes `x^T y`, the gradient of a weight, by a slower
    library than `x y`. So there the smaller operand is transposed first (1.1 to 1.75 times as fast). Elsewhere the
    operands stay as they are.

    Args:
        out: layout of the result, if the operands do not determine it.
    """
    if platform() == "cpu":
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        of_x, of_y, of_sum = re.split(",|->", equation)
        if of_x[0] == of_y[0] and of_x[0] not in of_sum:
            return _sum_over_first(x, y, of_x, of_y, of_sum, out)
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32, out_sharding=out)


def _sum_over_first(x: Array, y: Array, of_x: str, of_y: str, of_sum: str, out: PartitionSpec | None) -> Array:
    """The product over the first axis of both, with the smaller operand transposed first.

    `of_x`, `of_y` and `of_sum` are the letters of the equation `of_x,of_y->of_sum`.
    """
    if x.size > y.size:
        x, y, of_x, of_y = y, x, of_y, of_x
    barrier = jax.lax.optimization_barrier  # XLA would fold the transpositions into the product again
    x = barrier(jnp.moveaxis(x, 0, -1))
    first = of_x[1:] + of_y[1:]
    if out is not None:
        by_axis = dict(zip(of_sum, (*out, *[None] * (len(of_sum) - len(out))), strict=True))
        out = PartitionSpec(*(by_axis[axis] for axis in first))
    product = jnp.einsum(f"{of_x[1:]}{of_x[0]},{of_y}->{first}", x, y, out_sharding=out)
    return product if first == of_sum else barrier(product).transpose([first.index(axis) for axis in of_sum])


def platform() -> str:
    """The platform that the program is compiled for: the ambient mesh's, or jax's default without a mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()
