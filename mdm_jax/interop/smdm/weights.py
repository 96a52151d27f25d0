"""SMDM's safetensors files, read into arrays named as our weights, and written from them.

A file of an MDM has V+1 embedding rows, the last is MASK. A file of an ARM has V: SMDM's ARM predicts x_1 .. x_{L-1}
and has no start token. Ours has one, which is exported as the extra tensor `start.weight`.

The shapes of the tensors do not give the number of heads. Our own files have the model's shape as metadata. For SMDM's
files it comes from the ladder of published sizes, or else from a `config.json` beside the file.
"""

import json
import os
import re
from typing import Any

import numpy as np
from safetensors.numpy import save

from mdm_jax.command import refuse_hidden
from mdm_jax.files.storage import as_path, is_file, write_atomic
from mdm_jax.interop.config_json import parse_object, read_object, require_size
from mdm_jax.interop.model_file import ModelFile, Shapes, Weights
from mdm_jax.interop.tensors import check_shapes, read_tensors
from mdm_jax.spec import NORM_EPS, ROPE_BASE, Attention, ModelSpec
from mdm_jax.spec.validation import require

SEQ_LEN = 2048
"""Tokens of a row that SMDM trained on."""
FIXED = {"norm_eps": NORM_EPS, "rope_base": int(ROPE_BASE)}
"""Constants of our trunk. A `config.json` that gives another value is refused."""
CONFIG_KEYS = {"n_layer": "n_layers", "d_model": "d_model", "n_head": "n_heads", "ffn": "d_ffn", "vocab": "vocab_size"}
"""Keys of a `config.json`, and the fields of ModelSpec that they give."""
METADATA = "mdm_jax"
"""Key of the file's metadata under which an export keeps its config."""
EMBED, START, HEAD, NORM = "transformer.wte.weight", "start.weight", "lm_head.weight", "transformer.ln_f.weight"
LAYER = {
    "norm_attention": "norm_1",
    "qkv": "attn.attn",
    "out": "attn.proj",
    "norm_mlp": "norm_2",
    "gate": "mlp.swiglu.w1",
    "up": "mlp.swiglu.w2",
    "down": "mlp.swiglu.w3",
}
"""Our name of each weight of a layer, and SMDM's."""
FIRST_GATE = "transformer.h.0.mlp.swiglu.w1.weight"
NORM_OF_LAYER = re.compile(r"transformer\.h\.\d+\.norm_1\.weight", re.ASCII)


def read_smdm(path: str | os.PathLike[str]) -> ModelFile:
    """The model of a file. The header is checked, every shape with it, before a weight is read.

    Raises:
        ValueError: the file is absent, not on a local disk, cut short or no safetensors file; or its number of heads is
            unknown; or a tensor (named) is absent, unknown, of another shape or type, or not finite.
        OSError: the file cannot be read now.
    """
    file = as_path(path)
    (spec, seq_len, has_start), tensors = read_tensors(
        [file], lambda shapes, metadata: (*model_of_shapes(file, shapes, metadata), START in shapes)
    )
    causal = spec.attention is Attention.CAUSAL
    return ModelFile(spec, seq_len, has_start or not causal, _to_ours(tensors, spec))


def write_smdm(path: str | os.PathLike[str], weights: Weights, spec: ModelSpec, seq_len: int, has_start: bool) -> None:
    """Writes the file, with the model's shape as metadata. Reading it gives the same bits.

    Args:
        path: path of the file, which is replaced as a whole.
        weights: float32, by our names and in our layouts; `head` has V columns.
        spec: shape of the model.
        seq_len: tokens of a row that the model was trained on.
        has_start: False for an ARM without a start token.

    Raises:
        ValueError: the path is a link.
        OSError: no room or no access.
    """
    config = {key: getattr(spec, field) for key, field in CONFIG_KEYS.items()} | {"seq_len": seq_len} | FIXED
    tensors = _to_smdm(weights, spec, has_start)
    write_atomic(path, save(tensors, {METADATA: json.dumps(config)}))


def smdm_shapes(spec: ModelSpec, has_start: bool) -> Shapes:
    """The shape of every tensor of a file, by SMDM's names. Only an ARM may have a start token."""
    d, ffn, causal = spec.d_model, spec.d_ffn, spec.attention is Attention.CAUSAL
    layer = {"norm_1": (d,), "attn.attn": (3 * d, d), "attn.proj": (d, d), "norm_2": (d,)}
    layer |= {"mlp.swiglu.w1": (ffn, d), "mlp.swiglu.w2": (ffn, d), "mlp.swiglu.w3": (d, ffn)}
    shapes = {EMBED: (spec.vocab_size + (not causal), d), HEAD: (spec.vocab_size, d), NORM: (d,)}
    shapes |= {f"transformer.h.{i}.{n}.weight": shape for i in range(spec.n_layers) for n, shape in layer.items()}
    return shapes | ({START: (d,)} if causal and has_start else {})


def model_of_shapes(path: str | os.PathLike[str], shapes: Shapes, metadata: dict[str, str]) -> tuple[ModelSpec, int]:
    """The model with tensors of these shapes, and the tokens of a row that it was trained on.

    It is an ARM if the embedding has a row for each column of the head and no more.

    Args:
        path: path of the file, for messages, and for the `config.json` beside it.
        shapes: shape of every tensor, by SMDM's names.
        metadata: metadata of the file.

    Raises:
        ValueError: the number of heads is unknown, or a tensor is absent, unknown or of another shape.
    """
    config = _config(path, shapes, metadata)
    given = {field: config[key] for key, field in CONFIG_KEYS.items()}
    causal = shapes.get(EMBED, ())[:1] == (given["vocab_size"],)
    try:
        spec = ModelSpec(**given, attention=Attention.CAUSAL if causal else Attention.BIDIRECTIONAL)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    check_shapes(path, shapes, smdm_shapes(spec, START in shapes))
    return spec, config.get("seq_len", SEQ_LEN)


def _config(path: str | os.PathLike[str], shapes: Shapes, metadata: dict[str, str]) -> dict[str, Any]:
    """The model's shape under the keys of `config.json`, from the metadata, the published sizes, or that file."""
    if METADATA in metadata:
        where = f"{path}: metadata {METADATA}"
        return _checked_config(where, parse_object(where, metadata[METADATA]))
    by_shape = _known_size(path, shapes)
    if "n_head" in by_shape:
        return by_shape
    beside = as_path(path).parent / "config.json"
    if not is_file(beside):
        shape = ", ".join(f"{key} = {value}" for key, value in by_shape.items())
        raise ValueError(f"{path}: no published size has {shape}: put a config.json with n_head and these beside it")
    return _checked_config(str(beside), read_object(beside))


def _known_size(path: str | os.PathLike[str], shapes: Shapes) -> dict[str, int]:
    """The model's shape as far as the tensors give it; with `n_head` if it is a published size."""
    refuse_hidden("isoflop")
    from isoflop.ladder import SMDM

    for name in (HEAD, FIRST_GATE):
        require(len(shapes.get(name, ())) == 2, f"{path}: {name}", shapes.get(name, "absent"), "a matrix")
    (vocab, d), ffn = shapes[HEAD], shapes[FIRST_GATE][0]
    layers = sum(NORM_OF_LAYER.fullmatch(name) is not None for name in shapes)
    known = {"n_layer": layers, "d_model": d, "ffn": ffn, "vocab": vocab}
    heads = [size.n_heads for size in SMDM.values() if (size.n_layers, size.d_model, size.d_ffn) == (layers, d, ffn)]
    return known | ({"n_head": heads[0]} if heads else {})


def _checked_config(where: str, tree: dict[str, Any]) -> dict[str, Any]:
    for key in (*CONFIG_KEYS, *({"seq_len"} & tree.keys())):
        require_size(where, tree, key)
    for key, value in FIXED.items():
        require(tree.get(key, value) == value, f"{where}: {key}", tree.get(key), f"{value}: the trunk has no other")
    return tree


def _to_ours(tensors: Weights, spec: ModelSpec) -> Weights:
    d, heads, width, ffn = spec.d_model, spec.n_heads, spec.d_head, spec.d_ffn
    inner = {"qkv": (d, heads, 3, width), "out": (heads, width, d), "gate": (d, ffn), "up": (d, ffn), "down": (ffn, d)}
    ours = {"head": tensors[HEAD].T, "norm_final": tensors[NORM]}
    last_1D = tensors.get(START, np.zeros(d, np.float32))[None]
    causal = spec.attention is Attention.CAUSAL
    ours["embed"] = np.concatenate([tensors[EMBED], last_1D]) if causal else tensors[EMBED]
    for name, theirs in LAYER.items():
        layers = [tensors[f"transformer.h.{i}.{theirs}.weight"] for i in range(spec.n_layers)]
        ours[name] = np.stack([w.T.reshape(inner[name]) if name in inner else w for w in layers])
    ours["qkv"] = ours["qkv"].swapaxes(2, 3)
    return ours


def _to_smdm(ours: Weights, spec: ModelSpec, has_start: bool) -> Weights:
    shapes = smdm_shapes(spec, has_start)
    tensors = {EMBED: ours["embed"][: shapes[EMBED][0]], HEAD: ours["head"].T, NORM: ours["norm_final"]}
    if START in shapes:
        tensors[START] = ours["embed"][spec.vocab_size]
    for name, theirs in LAYER.items():
        stacked = ours[name].swapaxes(2, 3) if name == "qkv" else ours[name]
        for i, w in enumerate(stacked):
            full_name = f"transformer.h.{i}.{theirs}.weight"
            tensors[full_name] = w.reshape(shapes[full_name][::-1]).T
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
