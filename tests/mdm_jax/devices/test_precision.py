"""What the train step and the evaluation ask of each matrix product, on the way to each kind of device."""

import collections
import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from tiny_runs import on_mesh, run_spec, tokens

from isoflop.preflight.compile import NO_TPU_QUERIES
from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import BATCH_L, DATA, MODEL, REPLICA, REPLICATED
from mdm_jax.evaluate.nelbo import evaluate
from mdm_jax.spec import (
    ComputeDtype,
    EvaluationSpec,
    Family,
    Float32Precision,
    HardwareSpec,
    ModelSpec,
    RunSpec,
    to_json,
)
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state, make_state
from mdm_jax.train.step import compile_step

TRUNK = ModelSpec(n_layers=1, d_model=32, n_heads=2, d_ffn=64)
ROUGH = dataclasses.replace(TRUNK, compute_dtype=ComputeDtype.BFLOAT16)
CPU, TPU, GPU = ("cpu", "cpu"), ("tpu", "TPU v5 lite"), ("gpu", "NVIDIA H100 80GB HBM3")
LOWERED_AS = {"cpu": "cpu", "tpu": "tpu", "gpu": "cuda"}
PRODUCT = r"stablehlo\.dot_general .* precision = \[(\w+), (\w+)\].*x(\w+)>, tensor<.*x(\w+)>\) -> tensor<.*x(\w+)>"


def traced_step(spec: RunSpec, platform: str, kind: str) -> jax.stages.Traced:
    """The train step on shapes, for a device that need not be here."""
    device = AbstractDevice(kind, 1, platform)
    mesh = AbstractMesh((1, 1, 1), (REPLICA, DATA, MODEL), (AxisType.Explicit,) * 3, abstract_device=device)

    def leaf(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        layout = REPLICATED if x.sharding is None else x.sharding.spec
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, layout))

    shape = (spec.optim.global_batch, spec.data.seq_len)
    with jax.sharding.use_abstract_mesh(mesh):
        state = jax.tree.map(leaf, jax.eval_shape(lambda: make_state(spec)))
        rate = jax.eval_shape(lambda: learning_rate(spec.optim, spec.schedule))
        tokens_BL = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, BATCH_L))
        return compile_step(spec).trace(state, tokens_BL, rate)


def products(program: str) -> collections.Counter:
    """How often StableHLO has a product of two precisions, two operands' dtypes and a result's dtype."""
    found = re.findall(PRODUCT, program)
    assert len(found) == program.count("stablehlo.dot_general")
    return collections.Counter(found)


def products_of_step(model: ModelSpec, family: Family, device: tuple[str, str]) -> collections.Counter:
    traced = traced_step(run_spec(family, model, 16), *device)
    return products(traced.lower(lowering_platforms=(LOWERED_AS[device[0]],)).as_text())


@pytest.mark.parametrize(
    ("family", "device", "precision"),
    [
        (Family.MDM, GPU, Float32Precision.HIGHEST),
        (Family.ARM, CPU, Float32Precision.HIGHEST),
        (Family.ARM, TPU, Float32Precision.DEFAULT),
    ],
    ids=str,
)
def test_every_float32_product_of_a_step_has_the_precision_of_the_spec(family, device, precision):
    model = dataclasses.replace(TRUNK, float32_precision=precision)
    with jax.default_matmul_precision("high"):  # what the user's environment says does not count
        found = products_of_step(model, family, device)
    assert set(found) == {(precision.name, precision.name, "f32", "f32", "f32")}
    assert found.total() == 24  # five weights and two of attention, forward and twice backward; three of the head


def test_the_tpus_attention_kernel_asks_for_it_too():
    text = str(traced_step(run_spec(Family.MDM, TRUNK, 128), *TPU).jaxpr)
    assert text.count("pallas_call[") == 3
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == text.count("dot_general[") > 24


def test_every_product_of_an_evaluation_asks_for_it(tmp_path):
    spec = run_spec(Family.MDM, TRUNK, 16, evaluation=EvaluationSpec(mc_samples=2, batch=4))
    with on_mesh():
        model = init_state(spec).evaluated
        jax.config.update("jax_dump_ir_to", str(tmp_path))
        try:
            evaluate(model, spec, tokens((8, 16), TRUNK.vocab_size), jax.sharding.get_mesh())
        finally:
            jax.config.update("jax_dump_ir_to", "")
    found = products("".join(path.read_text() for path in Path(tmp_path).iterdir()))
    assert set(found) == {("HIGHEST", "HIGHEST", "f32", "f32", "f32")}
    assert found.total() == 8


def test_bfloat16_products_stay_on_an_accelerator_and_are_asked_for_nothing_slow():
    with jax.default_matmul_precision("highest"):
        on_tpu, on_cpu = (products_of_step(ROUGH, Family.MDM, device) for device in (TPU, CPU))
    assert {precisions[:2] for precisions in on_tpu} == {("DEFAULT", "DEFAULT")}
    # five gradients of weights, the scores, the gradient of their shares, and three products of the head
    assert on_tpu["DEFAULT", "DEFAULT", "bf16", "bf16", "f32"] == 10
    assert on_tpu["DEFAULT", "DEFAULT", "f32", "f32", "f32"] == 0
    assert on_cpu["DEFAULT", "DEFAULT", "bf16", "bf16", "f32"] == 0
    assert on_cpu.total() == on_tpu.total() == 24


def test_a_sum_in_float32_of_bfloat16_operands():
    x, y = (jax.random.normal(jax.random.key(i), (64, 300)).astype(jnp.bfloat16) for i in range(2))
    exact = np.asarray(x, np.float64) @ np.asarray(y, np.float64).T
    with on_mesh():
        summed = jax.jit(lambda x, y: sum_in_float32("bd,cd->bc", x, y))(x, y)
    assert summed.dtype == jnp.float32
    assert np.abs(summed - exact).max() < 1e-5 * np.abs(exact).max()


def test_the_precision_leaves_run_ids_alone_and_is_of_float32_only():
    plain = run_spec(Family.MDM, TRUNK, 16)
    faster = run_spec(Family.MDM, dataclasses.replace(TRUNK, float32_precision=Float32Precision.DEFAULT), 16)
    assert plain.run_id == "mdm-1x32-369f5d2bb6b1"
    assert faster.run_id != plain.run_id
    with pytest.raises(ValueError, match=r"model\.float32_precision = 'default': must be highest .* it is bfloat16"):
        dataclasses.replace(ROUGH, float32_precision=Float32Precision.DEFAULT)


COMPILED = """
import re, sys
from jax.experimental.topologies import get_topology_desc
from mdm_jax.spec import from_json
from mdm_jax.train.ahead import lower_step
text = lower_step(from_json(sys.argv[1]), get_topology_desc("v5e:2x2", "tpu").devices).compile().as_text()
asked = re.findall(r"operand_precision={([a-z,]+)}", text)
found = re.findall(r"= \\S+ (?:convolution|dot)\\(", text)
print(text.count("tpu_custom_call"), len(found), *sorted(set(asked)), len(asked))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no TPU compiler here: pip install mdm-jax[tpu]")
@pytest.mark.parametrize(("dtype", "said"), [("float32", "3 18 highest,highest 18"), ("bfloat16", "3 18 0")])
def test_the_tpus_compiler_takes_it(dtype, said):
    """Attention in three kernels, 18 products outside of them, and the precision of those that were asked for one."""
    model = ModelSpec(n_layers=1, d_model=128, n_heads=2, d_ffn=256, compute_dtype=ComputeDtype(dtype))
    spec = run_spec(Family.MDM, model, 128, hardware=HardwareSpec(mesh_data=2, mesh_model=2))
    environment = {**os.environ, **NO_TPU_QUERIES, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", COMPILED, to_json(spec)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == said


@pytest.mark.parametrize("shapes", [((5, 3), (5, 4)), ((5, 4), (5, 3)), ((5, 4), (5, 2, 3))])
def test_a_sum_over_the_first_axis_is_the_product(shapes):
    """On a CPU the smaller operand is transposed first."""
    x, y = (np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes))
    equation = "td,tfg->fdg" if y.ndim == 3 else "td,tf->df"
    with on_mesh():
        found = jax.jit(lambda x, y: sum_in_float32(equation, x, y))(x, y)
    np.testing.assert_allclose(found, np.einsum(equation, x, y), rtol=1e-5, atol=1e-6)
