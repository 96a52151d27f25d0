"""What the devices send each other in a step: gradients over the vocabulary are scattered, and no state is whole."""

import re

import jax
import numpy as np
import pytest
from tiny_runs import run_spec

from mdm_jax.devices.sharding import (
    DATA,
    PartitionSpec,
    abstract_arrays,
    layout,
    make_mesh,
    over_shards,
    reshard,
    rows_spec,
    run_mesh,
    sum_in_a_ring,
)
from mdm_jax.spec import Family, HardwareSpec, ModelSpec, OptimSpec, RunSpec
from mdm_jax.train.ahead import lower_step
from mdm_jax.train.state import make_state

pytestmark = pytest.mark.usefixtures("compiled_quickly")
WORDS, DEVICES, LENGTH, ROWS = 97, 8, 32, 16
"""A prime number of words: an array's size tells whether it has a number for each. The table has one row more."""
TRUNK = ModelSpec(n_layers=1, d_model=32, n_heads=2, d_ffn=64, vocab_size=WORDS)
SHAPE = re.compile(r"\b(?:bf16|[fsu]\d+)\[([\d,]+)\]")


def program(spec: RunSpec) -> str:
    return lower_step(spec, jax.devices()[:DEVICES]).compile().as_text() or ""


def sizes(program: str, operation: str) -> list[int]:
    """Numbers in each array that these operations return."""
    lines = [line.split(f" {operation}(")[0] for line in program.splitlines() if f" {operation}(" in line]
    return [int(np.prod([int(n) for n in shape.split(",")])) for line in lines for shape in SHAPE.findall(line)]


@pytest.mark.parametrize(
    ("family", "hardware", "parts"),
    [
        (Family.MDM, HardwareSpec(mesh_data=8), 8),
        (Family.ARM, HardwareSpec(mesh_data=4, mesh_replica=2), 4),
    ],
    ids=["mdm-8x1", "arm-2x4x1"],
)
def test_gradients_over_the_vocabulary_are_scattered(family, hardware, parts):
    """The head and the table are reduce-scattered. Replicas add the shards alone."""
    text = program(run_spec(family, TRUNK, LENGTH, optim=OptimSpec(global_batch=ROWS), hardware=hardware))
    head, table = WORDS * TRUNK.d_model // parts, (WORDS + 1) * TRUNK.d_model // parts
    assert {head, table} <= set(sizes(text, "reduce-scatter"))
    reduced = set(sizes(text, "all-reduce"))
    assert ({head, table} <= reduced) is (parts < DEVICES)
    assert not {parts * head, parts * table} & reduced


@pytest.mark.parametrize(("shape", "axis"), [((16, 5), 0), ((3, 8, 2), 1), ((4, 1, 24), 2)], ids=str)
def test_a_ring_sums_and_scatters(shape, axis):
    """The TPU's way, run by CPUs: each device gets its shard of the sum."""
    x_Sx = np.arange(DEVICES * np.prod(shape), dtype=np.float32).reshape(DEVICES, *shape) ** 2
    mesh = make_mesh(DEVICES, 1, jax.devices()[:DEVICES])
    out = PartitionSpec(*[DATA if i == axis else None for i in range(len(shape))])
    with jax.set_mesh(mesh):
        of_device = over_shards(lambda x_1x: sum_in_a_ring(x_1x[0], axis), rows_spec(x_Sx.ndim), out)
        found = jax.jit(lambda x: of_device(reshard(x, rows_spec(x_Sx.ndim))))(x_Sx)
        assert layout(found) == out
        np.testing.assert_allclose(np.asarray(found), x_Sx.sum(0), rtol=1e-6)


@pytest.mark.parametrize("hardware", [HardwareSpec(mesh_data=8), HardwareSpec(mesh_data=4, mesh_model=2)], ids=str)
def test_no_state_is_whole_on_a_device(hardware):
    """Each matrix of weights and of moments is split over all devices; only gains of norms are whole."""
    spec = run_spec(Family.MDM, TRUNK, LENGTH, optim=OptimSpec(global_batch=ROWS), hardware=hardware)
    mesh = run_mesh(spec, jax.devices()[:DEVICES])
    leaves = [x for x in jax.tree.leaves(abstract_arrays(mesh, lambda: make_state(spec))) if x.size > TRUNK.d_model]
    assert len(leaves) == 3 * 7  # embedding, head and five matrices of the layers: weights and both moments
    for leaf in leaves:
        assert np.prod(leaf.sharding.shard_shape(leaf.shape)) == leaf.size // DEVICES
