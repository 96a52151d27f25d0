"""What a layer's forward pass keeps for its backward pass: the policies of `hardware.remat`.

| policy | kept in the device's memory | computed again |
|---|---|---|
| none | all that the backward pass reads | nothing |
| dots | results of products with weights, and of attention | norms, rotations, activations, einsum attention's scores |
| offload | as `dots`, in the host's memory (cuDNN's attention on the device) | as `dots` |
| full | the layer's input | the whole layer |

A fused kernel's result is kept with the sums of its softmax, which its backward pass reads. Otherwise the kernel would
run a second time. The scores of einsum attention are large, so they are computed again.
"""

from collections.abc import Callable
from typing import Any

import jax

from mdm_jax.model.row_attention import OUTPUT
from mdm_jax.spec import HardwareSpec, LayerLoop, Remat

CUDNN = "dot_product_attention_fwd"
"""The beginning of the name of cuDNN's attention primitive. Its results have no name that a policy could find."""
DEVICE, HOST = "device", "pinned_host"
"""Kinds of memory."""


def rematerialised(layer: Callable[..., Any], hardware: HardwareSpec) -> Callable[..., Any]:
    """The layer, whose gradient keeps what the policy `hardware.remat` says. Its results are the same."""
    if hardware.remat is Remat.NONE:
        return layer
    return jax.checkpoint(layer, policy=POLICIES[hardware.remat], prevent_cse=hardware.layers is not LayerLoop.SCAN)


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
