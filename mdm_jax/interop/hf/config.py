"""`config.json` of the two Hugging Face classes: written for a model, and read with a check of every constant.

A key that changes the forward pass is refused unless it has our trunk's value. An absent key has the value that the
class gives it, which is not always ours: Llama's RMSNorm has an epsilon of 1e-6 by default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdm_jax.interop.config_json import require_size
from mdm_jax.spec import NORM_EPS, ROPE_BASE, Attention, ModelSpec
from mdm_jax.spec.validation import require

ROWS = "vocab_size"
"""Key of the rows of the embedding and of the head, in both classes."""
START = "mdm_jax_start_token_id"
"""Key of an ARM's start token, which is the last row of the table. Llamas of other origin do not have the key."""
LLADA_CODE = "GSAI-ML/LLaDA-8B-Base--"
"""The repository from which Hugging Face takes the code of LLaDA's classes: the folder itself has no code."""


@dataclass(frozen=True)
class Layout:
    """The keys of a class's config."""

    architecture: str
    model_type: str
    attention: Attention
    shape: Mapping[str, str]
    """Fields of ModelSpec, and the keys that give them."""
    length: str
    """Key of the tokens of a row."""
    fixed: Mapping[str, tuple[Any, Any]]
    """Keys with one value that our trunk has, and the value that an absent key has."""
    as_heads: str
    """Key of the number of heads of keys and values, which must be the number of heads, or null."""


LLAMA = Layout(
    architecture="LlamaForCausalLM",
    model_type="llama",
    attention=Attention.CAUSAL,
    shape={
        "n_layers": "num_hidden_layers",
        "d_model": "hidden_size",
        "n_heads": "num_attention_heads",
        "d_ffn": "intermediate_size",
    },
    length="max_position_embeddings",
    fixed={
        "hidden_act": ("silu", "silu"),
        "rms_norm_eps": (NORM_EPS, 1e-6),
        "rope_theta": (ROPE_BASE, ROPE_BASE),
        "attention_bias": (False, False),
        "mlp_bias": (False, False),
        "tie_word_embeddings": (False, False),
    },
    as_heads="num_key_value_heads",
)
LLADA = Layout(
    architecture="LLaDAModelLM",
    model_type="llada",
    attention=Attention.BIDIRECTIONAL,
    shape={"n_layers": "n_layers", "d_model": "d_model", "n_heads": "n_heads", "d_ffn": "mlp_hidden_size"},
    length="max_sequence_length",
    fixed={
        "activation_type": ("silu", "swiglu"),
        "rms_norm_eps": (NORM_EPS, NORM_EPS),
        "rope_theta": (ROPE_BASE, ROPE_BASE),
        "rope": (True, False),
        "block_type": ("llama", "sequential"),
        "block_group_size": (1, 1),
        "layer_norm_type": ("rms", "default"),
        "layer_norm_with_affine": (True, True),
        "attention_layer_norm": (False, False),
        "alibi": (False, False),
        "include_bias": (False, False),
        "include_qkv_bias": (False, False),
        "input_emb_norm": (False, False),
        "scale_logits": (False, False),
        "weight_tying": (False, True),
    },
    as_heads="n_kv_heads",
)
LAYOUTS = {layout.architecture: layout for layout in (LLAMA, LLADA)}


def write_config(spec: ModelSpec, seq_len: int, has_extra: bool, eos_id: int | None) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
        spec: shape of the model.
        seq_len: tokens of a row.
        has_extra: whether id V is a token that the model reads: MASK or the start token.
        eos_id: id of EOS; None where the tokenizer is unknown.
    """
    layout = LLAMA if spec.attention is Attention.CAUSAL else LLADA
    config: dict[str, Any] = {"architectures": [layout.architecture], "model_type": layout.model_type}
    config |= {key: getattr(spec, field) for field, key in layout.shape.items()}
    config |= {key: ours for key, (ours, _) in layout.fixed.items()}
    config |= {layout.as_heads: spec.n_heads, layout.length: seq_len, ROWS: spec.vocab_size + has_extra}
    extra = spec.vocab_size if has_extra else None
    config |= {"eos_token_id": eos_id, "pad_token_id": None, "torch_dtype": "float32"}
    if layout is LLAMA:
        return config | {"bos_token_id": extra, "use_cache": True} | ({START: extra} if has_extra else {})
    classes = {"AutoConfig": "configuration_llada.LLaDAConfig"}
    classes |= dict.fromkeys(("AutoModel", "AutoModelForCausalLM"), "modeling_llada.LLaDAModelLM")
    config |= {"embedding_size": spec.vocab_size + 1, "mask_token_id": extra, "use_cache": False}
    config |= {"bias_for_layer_norm": False, "multi_query_attention": None, "rope_full_precision": True}
    config |= dict.fromkeys(("attention_dropout", "embedding_dropout", "residual_dropout"), 0.0)
    return config | {"auto_map": {key: LLADA_CODE + place for key, place in classes.items()}}


def read_config(where: str, config: Mapping[str, Any]) -> tuple[ModelSpec, int, bool]:
    """The model's shape, the tokens of a row, and whether id V is a token that the model reads.

    Args:
        where: path of the file, for messages.
        config: content of `config.json`.

    Raises:
        ValueError: the class is unknown, or a key (named) is absent or has a value that our trunk does not have.
    """
    named: Any = config.get("architectures")
    known = isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0] in LAYOUTS
    require(known, f"{where}: architectures", named, f"[one of {', '.join(LAYOUTS)}]")
    layout = LAYOUTS[named[0]]
    config = _with_plain_rope(where, config) if layout is LLAMA else config
    sizes = {field: require_size(where, config, key) for field, key in layout.shape.items()}
    seq_len, rows = (require_size(where, config, key) for key in (layout.length, ROWS))
    for key, (ours, absent) in layout.fixed.items():
        value = config.get(key, absent)
        fits = type(value) is type(ours) or (type(ours) is float and type(value) is int)
        require(fits and value == ours, f"{where}: {key}", value, f"{ours!r}: the trunk has no other")
    heads, d_head = sizes["n_heads"], sizes["d_model"] // sizes["n_heads"]
    per_head = config.get(layout.as_heads)
    require(per_head in (None, heads), f"{where}: {layout.as_heads}", per_head, f"{heads}, one for each head")
    require(not config.get("multi_query_attention"), f"{where}: multi_query_attention", True, "false")
    require(config.get("head_dim") in (None, d_head), f"{where}: head_dim", config.get("head_dim"), f"{d_head}")
    packed = config.get("quantization_config")
    require(packed is None, f"{where}: quantization_config", packed, "absent: weights must be plain numbers")
    has_extra = _has_extra_token(where, config, layout, rows)
    given: dict[str, Any] = {**sizes, "vocab_size": rows - has_extra}
    try:
        spec = ModelSpec(**given, attention=layout.attention)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return spec, seq_len, has_extra


def _has_extra_token(where: str, config: Mapping[str, Any], layout: Layout, rows: int) -> bool:
    """Whether the last row of the table is MASK or the start token; an MDM without MASK is refused."""
    if layout is LLAMA and config.get(START) is None:
        return False
    key = START if layout is LLAMA else "mask_token_id"
    bound = f"{rows - 1}, the last row of the table"
    require(config.get(key) == rows - 1, f"{where}: {key}", config.get(key), bound)
    if layout is LLADA:
        table = config.get("embedding_size", "absent")
        require(table in (None, rows), f"{where}: embedding_size", table, f"{rows}, as {ROWS}")
    return True


def _with_plain_rope(where: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with `rope_theta` as a key of its own: transformers writes an object `rope_parameters` since 5.0."""
    flat = dict(config)
    for key in ("rope_parameters", "rope_scaling"):
        rope = flat.get(key)
        if rope is None:
            continue
        require(isinstance(rope, dict), f"{where}: {key}", rope, "an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        require(kind == "default", f"{where}: {key}.rope_type", kind, "'default': the trunk has no other")
        flat |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    part = flat.get("partial_rotary_factor", 1)
    require(part in (None, 1), f"{where}: partial_rotary_factor", part, "1: the trunk turns whole heads")
    return flat
