"""Initial weights of small models, drawn on the host: the same bits as `Transformer` draws, without its compilation.

On a CPU the program that makes the weights of a tiny model takes three to five seconds to compile, because it has a
copy of jax's normal distribution for each weight. Here all weights come from one such copy. jax's random numbers are a
function of the key and of a number's index (`jax_threefry_partitionable`), so a weight is the beginning of a longer
draw, and one length of draws serves most weights.
"""

import math

import jax
import numpy as np
from jax.sharding import Mesh

from mdm_jax.spec import ModelSpec
from mdm_jax.spec.counting import count_parameters

LEAST_DRAWN = 1 << 14
"""Every draw has this many numbers, or a power of two above it."""
MOST_PARAMETERS = 1 << 22
"""For a larger model, the compiled program is no longer slow in comparison."""


def is_drawn_here(spec: ModelSpec, mesh: Mesh) -> bool:
    """Whether `initial_weights` has this model: a small one on one CPU, without weights that only some models have."""
    settings = jax.config.jax_threefry_partitionable, jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    plain = not (spec.mask_column or spec.time_conditioning) and settings == (True, "threefry2x32")
    on_cpu = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
    return plain and on_cpu and count_parameters(spec).total <= MOST_PARAMETERS


def initial_weights(spec: ModelSpec, seed: int) -> dict[str, np.ndarray]:
    """The weights of `Transformer(spec, jax.random.key(seed))`, float32, by their names in it.

    Args:
        spec: a model for which `is_drawn_here`.
        seed: the run's seed.
    """
    d, vocab, heads, width, ffn = spec.d_model, spec.vocab_size, spec.n_heads, spec.d_head, spec.d_ffn
    key_embed, key_head, key_blocks = jax.random.split(jax.random.key(seed), 3)
    sd, sd_out = (2 / (5 * d)) ** 0.5, d**-0.5 / spec.n_layers
    shapes = {
        "qkv": ((d, 3, heads, width), sd),
        "out": ((heads, width, d), sd_out),
        "gate": ((d, ffn), sd),
        "up": ((d, ffn), sd),
        "down": ((ffn, d), sd_out),
    }
    found = {"embed": _normal(key_embed, (vocab + 1, d), sd), "head": _normal(key_head, (d, vocab), sd)}
    layers = [jax.random.split(key, len(shapes)) for key in jax.random.split(key_blocks, spec.n_layers)]
    for place, (name, (shape, scale)) in enumerate(shapes.items()):
        found[name] = np.stack([_normal(keys[place], shape, scale) for keys in layers])
    ones_ND = np.ones((spec.n_layers, d), np.float32)
    return found | {"norm_attention": ones_ND, "norm_mlp": ones_ND, "norm_final": ones_ND[0]}


def _normal(key: jax.Array, shape: tuple[int, ...], sd: float) -> np.ndarray:
    """`sd * jax.random.normal(key, shape)`."""
    count = math.prod(shape)
    drawn = np.asarray(jax.random.normal(key, (max(LEAST_DRAWN, 1 << (count - 1).bit_length()),)))
    return np.float32(sd) * drawn[:count].reshape(shape)
