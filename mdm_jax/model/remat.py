"""What a layer's forward pass keeps for its backward pass: the policies of `hardware.remat`.

| policy | kept in the device's memory | computed again |
|---|---|---|
| none | all that the backward pass reads | nothing |
| dots | results of products with weights, and of attention | norms, rotations, activations, attention's scores |
| offload | as `dots`, in the host's memory (cuDNN's attention on the device) | as `dots` |
| full | the layer's input | the whole layer |

A fused kernel's result is kept with the sums of its softmax, which its backward pass reads. Otherwise the kernel would
run a second time. The scores of attention by products are large, so they are computed again.

The first layers may have one policy and the rest another (`hardware.remat_layers`). The first layers are those that
recompute more: the backward pass comes to them last, when it has freed what the rest kept.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdm_jax.devices.sharding import at_index
from mdm_jax.model.product_attention import OUTPUT
from mdm_jax.spec import LayerLoop, Remat

CUDNN = "dot_product_attention_fwd"
"""The beginning of the name of cuDNN's attention primitive. Its results have no name that a policy could find."""
DEVICE, HOST = "device", "pinned_host"
"""Kinds of memory."""


def rematerialised(layer: Callable[..., Any], remat: Remat, loop: LayerLoop) -> Callable[..., Any]:
    """The layer, whose gradient keeps what the policy `remat` says. Its results are the same."""
    if remat is Remat.NONE:
        return layer
    return jax.checkpoint(layer, policy=POLICIES[remat], prevent_cse=loop is not LayerLoop.SCAN)


def scan_part(
    layer: Callable[[Any, Any], tuple[Any, None]],
    x_BLD: Float[Array, "B L D"],
    stack: Any,
    numbers_N: Int[Array, "N"] | None,
    places: range,
    remat: Remat,
) -> Float[Array, "B L D"]:
    """The output of some consecutive layers of a stack, in one loop; its gradient keeps what `remat` says.

    `lax.scan` over a slice of the stack would hold a copy of the slice from the forward to the backward pass. So the
    loop reads each layer's weights from the whole stack, in both passes. The slice is there only to receive the
    gradient: no pass reads its values, and the compiler drops them.

    Args:
        layer: takes the input, and a pair of the layer's weights and its number; returns the output and None.
        stack: weights of all layers, floats with a leading axis of layers.
        numbers_N: the layers' numbers, or None if `layer` needs none.
        places: the layers' places in the stack.
    """
    whole = jax.lax.stop_gradient(stack)
    slots = jax.tree.map(lambda w: w[places.start : places.stop], stack)

    def one(x: Any, at: tuple[Array, Any]) -> tuple[Any, None]:
        place, slot = at
        own = at_index(whole, place)
        number = None if numbers_N is None else numbers_N[place]
        return layer(x, (jax.tree.map(_with_gradient_to, own, slot), number))

    policy = POLICIES.get(remat, _keep_all_but_views)
    body = jax.checkpoint(one, policy=policy, prevent_cse=False)
    return jax.lax.scan(body, x_BLD, (jnp.arange(places.start, places.stop), slots))[0]


@jax.custom_vjp
def _with_gradient_to(own: Array, slot: Array) -> Array:
    """`own`, whose gradient goes to `slot`."""
    return own


_with_gradient_to.defvjp(lambda own, slot: (own, None), lambda _, gradient: (None, gradient))


def _keep_all_but_views(primitive: Any, *_: Any, **__: Any) -> bool:
    """The policy `none` within `scan_part`: it keeps everything, except a layer's weights as read from the stack.

    Reading a layer is a `dynamic_slice` and a `squeeze`, and some products take a reshaped weight.
    """
    return primitive.name not in ("dynamic_slice", "squeeze", "reshape")


def _keep(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    """Whether the policy `dots` keeps a result."""
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *arguments, **parameters)
    return dots or primitive.name.startswith(CUDNN) or _is_attention(primitive, parameters)


def _offload(primitive: Any, *arguments: Any, **parameters: Any) -> Any:
    """Moves what `dots` keeps to the host, except cuDNN's results: jax can move products and named results only."""
    if primitive.name.startswith(CUDNN):
        return True
    to_host = _attention_to_host if _is_attention(primitive, parameters) else _dots_to_host
    return to_host(primitive, *arguments, **parameters)


def _is_attention(primitive: Any, parameters: dict[str, Any]) -> bool:
    return primitive.name == "name" and parameters["name"] == OUTPUT


_dots_to_host = jax.checkpoint_policies.offload_dot_with_no_batch_dims(DEVICE, HOST)
_attention_to_host = jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[OUTPUT],
    offload_src=DEVICE,
    offload_dst=HOST,
)
POLICIES = {
    Remat.DOTS: _keep,
    Remat.OFFLOAD: _offload,
    Remat.FULL: jax.checkpoint_policies.nothing_saveable,
}
