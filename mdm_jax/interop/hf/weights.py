"""Names and layouts of the tensors of a Hugging Face folder, and our weights in them.

Llama's trunk is ours: the same norm, the same pairs of channels in RoPE, the same gated MLP. LLaDA's trunk is Llama's
under other names. Only our extra token needs a choice.

Our id V (MASK for an MDM, the start token for an ARM) has a row in the embedding and no column in the head: a model
never predicts it. Both Hugging Face classes give the embedding and the head the same number of rows. They have no bias.
So the exported head has a row for id V, which is the mean of the other rows. The logit of id V is then the mean of the
other logits. It never exceeds the largest of them, so greedy decoding never chooses id V. The probability of id V is at
most 1/(V+1), because a geometric mean is at most the arithmetic one. A row of zeros has no such bound. The other logits
are ours. An import drops the row again.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mdm_jax.interop.model_file import Shapes, Weights
from mdm_jax.spec import Attention, ModelSpec


class Part(NamedTuple):
    """Our name of a layer's weight, and its place among the stacked q, k and v; -1 for a weight of its own."""

    name: str
    place: int = -1


@dataclass(frozen=True)
class Names:
    """The names of one class's tensors. `layer` is the start of a layer's names, with `{}` for its number."""

    embed: str
    head: str
    norm_final: str
    layer: str
    parts: dict[str, Part]


def _parts(norms: tuple[str, str], attention: tuple[str, str, str, str], mlp: tuple[str, str, str]) -> dict[str, Part]:
    """The parts by their names: the norms of attention and MLP; q, k, v and out; gate, up and down."""
    ours = [Part("norm_attention"), Part("norm_mlp"), *(Part("qkv", i) for i in range(3)), Part("out")]
    ours += [Part("gate"), Part("up"), Part("down")]
    return dict(zip((*norms, *attention, *mlp), ours, strict=True))


LLAMA = Names(
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.norm.weight",
    "model.layers.{}.",
    _parts(
        ("input_layernorm", "post_attention_layernorm"),
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ),
)
LLADA = Names(
    "model.transformer.wte.weight",
    "model.transformer.ff_out.weight",
    "model.transformer.ln_f.weight",
    "model.transformer.blocks.{}.",
    _parts(
        ("attn_norm", "ff_norm"),
        ("q_proj", "k_proj", "v_proj", "attn_out"),
        ("ff_proj", "up_proj", "ff_out"),
    ),
)


def names_of(attention: Attention) -> Names:
    """The names that a model is exported under: Llama's for an ARM, LLaDA's for an MDM."""
    return LLAMA if attention is Attention.CAUSAL else LLADA


def hf_shapes(spec: ModelSpec, has_extra: bool) -> Shapes:
    """The shape of every tensor, by its name; `has_extra` says whether id V is a token that the model reads."""
    names, d, ffn, rows = names_of(spec.attention), spec.d_model, spec.d_ffn, spec.vocab_size + has_extra
    shape = {"norm_attention": (d,), "norm_mlp": (d,), "gate": (ffn, d), "up": (ffn, d), "down": (d, ffn)}
    shapes: Shapes = {names.embed: (rows, d), names.head: (rows, d), names.norm_final: (d,)}
    for i in range(spec.n_layers):
        for theirs, part in names.parts.items():
            shapes[f"{names.layer.format(i)}{theirs}.weight"] = shape.get(part.name, (d, d))
    return shapes


def to_hf(ours: Weights, spec: ModelSpec, has_extra: bool) -> Weights:
    """Our weights under the names and in the layouts of the Hugging Face class."""
    names, shapes = names_of(spec.attention), hf_shapes(spec, has_extra)
    head_VD = ours["head"].T
    if has_extra:
        head_VD = np.concatenate([head_VD, head_VD.mean(0, np.float64, keepdims=True).astype(np.float32)])
    tensors = {names.embed: ours["embed"][: len(head_VD)], names.head: head_VD, names.norm_final: ours["norm_final"]}
    for i in range(spec.n_layers):
        for theirs, (name, place) in names.parts.items():
            full_name = f"{names.layer.format(i)}{theirs}.weight"
            weight = ours[name][i] if place < 0 else ours[name][i][:, place]
            tensors[full_name] = weight.reshape(shapes[full_name][::-1]).T
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def from_hf(tensors: Weights, spec: ModelSpec, has_extra: bool) -> Weights:
    """Our weights from tensors of `hf_shapes`. Without the extra token the last row of `embed` is zero."""
    names, d, heads, width = names_of(spec.attention), spec.d_model, spec.n_heads, spec.d_head
    missing_xD = np.zeros((0 if has_extra else 1, d), np.float32)
    ours = {"embed": np.concatenate([tensors[names.embed], missing_xD]), "norm_final": tensors[names.norm_final]}
    ours["head"] = tensors[names.head][: spec.vocab_size].T
    inner = {"qkv": (d, heads, width), "out": (heads, width, d)}
    stacks: dict[str, list[np.ndarray]] = {}
    for theirs, (name, _) in names.parts.items():
        layers = [tensors[f"{names.layer.format(i)}{theirs}.weight"].T for i in range(spec.n_layers)]
        stacked = np.stack([w.reshape(inner.get(name, w.shape)) for w in layers])
        stacks.setdefault(name, []).append(stacked)
    return ours | {name: np.stack(of, 2) if name == "qkv" else of[0] for name, of in stacks.items()}
