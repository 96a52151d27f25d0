"""Small models with random weights as safetensors files under SMDM's names."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mdm_jax.interop.model_file import Weights
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, Family, ModelSpec

TRUNK = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_ffn=24, vocab_size=257)


def random_weights(spec: ModelSpec) -> Weights:
    """Weights in our layouts, so large that predictions are far from uniform."""
    n, d, heads, width, ffn = spec.n_layers, spec.d_model, spec.n_heads, spec.d_head, spec.d_ffn
    shapes = {"embed": (spec.vocab_size + 1, d), "head": (d, spec.vocab_size), "norm_final": (d,)}
    shapes |= {"norm_attention": (n, d), "qkv": (n, d, 3, heads, width), "out": (n, heads, width, d)}
    shapes |= {"norm_mlp": (n, d), "gate": (n, d, ffn), "up": (n, d, ffn), "down": (n, ffn, d)}
    draw = np.random.default_rng(0)
    return {name: draw.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_random(path: Path, attention: Attention, seq_len: int = 8, has_start: bool = True) -> Path:
    """The path of a file that holds a random model of bytes."""
    spec = dataclasses.replace(TRUNK, attention=attention)
    write_smdm(path, random_weights(spec), spec, seq_len, has_start)
    return path


def write_both(folder: Path, seq_len: int) -> dict[Family, str]:
    """The path of a random model of bytes of each family."""
    kinds = {Family.MDM: Attention.BIDIRECTIONAL, Family.ARM: Attention.CAUSAL}
    return {family: str(write_random(folder / family, kind, seq_len)) for family, kind in kinds.items()}


def write_uniform(path: Path, attention: Attention, tokens: Collection[int], seq_len: int = 8) -> Path:
    """The path of a file whose model draws every token uniformly from `tokens`, whatever it reads."""
    spec = dataclasses.replace(TRUNK, attention=attention)
    weights = {name: np.zeros_like(weight) for name, weight in random_weights(spec).items()}
    weights["embed"][:] = 1
    weights["norm_final"][:] = 1
    weights["head"][:] = -100 / spec.d_model
    weights["head"][:, list(tokens)] = 0
    write_smdm(path, weights, spec, seq_len, True)
    return path
