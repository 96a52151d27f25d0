"""The train step on meshes of 1 to 8 devices is one computation: same draws, losses and weights, the state spread."""

import collections
import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import put, quick_compilation, run_spec, tokens

from mdm_jax.devices.sharding import global_batch, make_mesh, run_mesh
from mdm_jax.objectives.loss import draw
from mdm_jax.spec import (
    ComputeDtype,
    Family,
    HardwareSpec,
    LayerLoop,
    LevelSampler,
    ModelSpec,
    ObjectiveSpec,
    OptimSpec,
    Remat,
    RunSpec,
    ScheduleSpec,
    Variant,
)
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import TrainState, init_state
from mdm_jax.train.step import compile_step

pytestmark = pytest.mark.usefixtures("compiled_quickly")
STEPS, BATCH, LENGTH, DECAY = 5, 16, 16, 0.9
TRUNK = ModelSpec(n_layers=2, d_model=32, n_heads=8, d_ffn=64)  # 257 words: the head is padded on 2, 4 and 8 devices
UNEVEN = dataclasses.replace(TRUNK, d_model=36, n_heads=2)
GOLDEN = Path(__file__).parents[2] / "golden" / "train_step.json"
BFLOAT16_ERRORS = {"loss": 1e-3, "grad_norm": 1e-2}
"""Most relative error of a step in bfloat16, whose rounding is 2^-9 = 2e-3; measured 7e-5 to 3e-4 and 5e-4 to 3e-3."""
BFLOAT16_SHARE = 0.2
"""Most error of the weights after STEPS steps, as a share of their way from the start; measured up to .093."""
PERMUTED = (5, 0, 3, 6, 1, 7, 2, 4)
MESHES = [(2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8), (4, 2)]
CASES = [(Family.MDM, (8, 1)), (Family.MDM, (4, 2)), (Family.ARM, (1, 8))]
CASES_LEFT = [(family, mesh) for family in Family for mesh in MESHES if (family, mesh) not in CASES]
BOTH = pytest.mark.parametrize("family", list(Family))


def spec_of(
    family: Family,
    data: int = 1,
    model: int = 1,
    dtype: ComputeDtype = ComputeDtype.FLOAT32,
    trunk: ModelSpec = TRUNK,
    **hardware,
) -> RunSpec:
    optim = OptimSpec(lr_peak=3e-3, global_batch=BATCH, ema_decay=DECAY)
    schedule = ScheduleSpec(steps=20, warmup_steps=2)
    hardware = HardwareSpec(mesh_data=data, mesh_model=model, **hardware)
    trunk = dataclasses.replace(trunk, compute_dtype=dtype)
    return run_spec(family, trunk, LENGTH, optim=optim, schedule=schedule, hardware=hardware)


def named(tree) -> dict[str, np.ndarray]:
    """Whole weights by name, without the columns that pad the vocabulary (they must be 0)."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path).removesuffix(".value"): np.asarray(weight) for path, weight in paths}
    for name, weight in leaves.items():
        if "head" in name:
            assert (weight[:, TRUNK.vocab_size :] == 0).all()
            leaves[name] = weight[:, : TRUNK.vocab_size]
    return leaves


def largest_share(state: TrainState) -> float:
    """The share of the state's bytes that lies on the fullest device."""
    leaves = jax.tree.leaves(state)
    held = collections.Counter()
    for shard in (shard for leaf in leaves for shard in leaf.addressable_shards):
        held[shard.device] += shard.data.nbytes
    return max(held.values()) / sum(leaf.nbytes for leaf in leaves)


@dataclass(frozen=True)
class Trained:
    """What STEPS steps left behind."""

    loss: list[float]
    grad_norm: list[float]
    params: list[dict[str, np.ndarray]]
    average: dict[str, np.ndarray]
    share: float
    programs: int
    reused: bool


@functools.cache
def initial_state(spec: RunSpec, _: jax.sharding.Mesh) -> TrainState:
    """The state before step 0 on the ambient mesh, which is an argument so that the cache tells meshes apart."""
    return init_state(spec)


@functools.cache
def trained(family: Family, data: int = 1, model: int = 1, order: tuple[int, ...] | None = None, **changes) -> Trained:
    """The first STEPS steps of a run, on the devices with the numbers `order` (by default the first ones)."""
    spec = spec_of(family, data, model, **changes)
    of_state = {name: changes[name] for name in ("trunk", "mesh_replica") if name in changes}
    first = spec_of(Family.MDM, data, model, **of_state)
    mesh = run_mesh(spec, [jax.devices()[i] for i in order or range(spec.hardware.devices)])
    with jax.set_mesh(mesh):
        state = jax.tree.map(jnp.copy, initial_state(first, mesh))  # both families begin with the same weights
        step, rate = compile_step(spec), learning_rate(spec.optim, spec.schedule)
        params, scalars = [named(state.params)], []
        for seed in range(STEPS):
            state, row = step(state, put(mesh, tokens((BATCH, LENGTH), TRUNK.vocab_size, seed)), rate)
            scalars.append(jax.device_get(row))
            params.append(named(state.params))
        loss, grad_norm = ([float(row[name]) for row in scalars] for name in ("loss", "grad_norm"))
        average, share = named(state.average), largest_share(state)
        unread, _ = step(state, put(mesh, tokens((BATCH, LENGTH), 2)), rate)
        step(unread, put(mesh, tokens((BATCH, LENGTH), 2)), rate)
        reused = all(x.is_deleted() for x in jax.tree.leaves(unread))  # numpy shares the memory of what it has read
        programs = step.program._cache_size()  # type: ignore[attr-defined]
        return Trained(loss, grad_norm, params, average, share, programs, reused)


def assert_same(actual: Trained, expected: Trained) -> None:
    np.testing.assert_allclose(actual.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(actual.grad_norm, expected.grad_norm, rtol=1e-5)
    for one, other in ((actual.params[-1], expected.params[-1]), (actual.average, expected.average)):
        for name, weight in other.items():
            assert np.linalg.norm(one[name] - weight) <= 1e-5 * np.linalg.norm(weight), name


@pytest.mark.parametrize(
    ("family", "mesh"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES_LEFT)],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]}x{value[1]}",
)
def test_any_mesh_trains_the_same_weights(family, mesh):
    actual, expected = trained(family, *mesh), trained(family)
    assert_same(actual, expected)
    assert actual.share <= 1 / (mesh[0] * mesh[1]) + 0.05
    assert actual.programs == 1
    assert actual.reused


@pytest.mark.parametrize(
    ("family", "mesh"),
    [(Family.MDM, (2, 2)), pytest.param(Family.ARM, (4, 1), marks=pytest.mark.slow)],
    ids=lambda value: value if isinstance(value, str) else f"2x{value[0]}x{value[1]}",
)
def test_replicas_of_the_weights_train_the_same_weights(family, mesh):
    """Two replicas, on devices in any order. Each holds the whole state, spread over its own devices."""
    actual = trained(family, *mesh, order=PERMUTED, mesh_replica=2)
    assert_same(actual, trained(family))
    assert actual.share <= 1 / (mesh[0] * mesh[1]) + 0.05
    assert actual.programs == 1
    assert actual.reused


@pytest.mark.parametrize("family", [pytest.param(Family.MDM, marks=pytest.mark.slow), Family.ARM])
def test_devices_that_do_not_divide_the_width_train_the_same_weights(family):
    """Four devices can share 36 channels and eight cannot: eight are two replicas of four."""
    assert spec_of(family, 8, trunk=UNEVEN).mesh_shape == (2, 4, 1)
    actual = trained(family, 8, trunk=UNEVEN)
    assert_same(actual, trained(family, trunk=UNEVEN))
    assert actual.share <= 1 / 4 + 0.05
    assert actual.programs == 1


@BOTH
def test_one_device(family):
    """One program for all steps, the old state's memory reused, and an average that is the weights' own."""
    run = trained(family)
    assert run.programs == 1
    assert run.reused
    for name, average in run.average.items():
        expected = run.params[0][name].astype(np.float64)
        for params in run.params[1:]:
            expected = DECAY * expected + (1 - DECAY) * params[name]
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)
        assert np.abs(run.params[-1][name] - run.params[0][name]).max() > 1e-3


def test_accumulated_microbatches_are_the_batch():
    assert_same(trained(Family.MDM, 2, 1, microbatches=4), trained(Family.MDM))


IN_OTHER_WAYS = {"layers": LayerLoop.UNROLL, "microbatches": 2, "remat": Remat.FULL}


@pytest.mark.parametrize(
    ("family", "mesh", "hardware"),
    [
        (Family.MDM, (1, 1), {}),
        (Family.ARM, (1, 1), IN_OTHER_WAYS),
        pytest.param(Family.MDM, (4, 2), IN_OTHER_WAYS, marks=pytest.mark.slow),
        pytest.param(Family.ARM, (4, 2), {}, marks=pytest.mark.slow),
    ],
    ids=["mdm", "arm-other-ways", "mdm-4x2-other-ways", "arm-4x2"],
)
def test_bfloat16_trains_close_to_float32(family, mesh, hardware):
    rough, exact = trained(family, *mesh, dtype=ComputeDtype.BFLOAT16, **hardware), trained(family)
    for name, most in BFLOAT16_ERRORS.items():
        error = np.abs(np.array(getattr(rough, name)) / np.array(getattr(exact, name)) - 1).max()
        assert 1e-5 < error < most, name
    for name, weight in exact.params[-1].items():
        moved = np.linalg.norm(weight - exact.params[0][name])
        assert np.linalg.norm(rough.params[-1][name] - weight) < BFLOAT16_SHARE * moved, name
    assert rough.programs == 1


TIMES = [levels for levels in LevelSampler if levels is not LevelSampler.OPTIMAL]
DRAWN = [
    *(ObjectiveSpec(levels=levels) for levels in LevelSampler),
    *(ObjectiveSpec(Variant.CONTINUOUS, levels) for levels in TIMES),
    ObjectiveSpec(levels=LevelSampler.OPTIMAL, stochastic_length=0.9),
    ObjectiveSpec(Variant.D3PM, LevelSampler.ANTITHETIC, time_steps=9, stochastic_length=0.9),
]


@functools.cache
def draws_on(shape: tuple[int, ...], order: tuple[int, ...]) -> dict[str, list[np.ndarray]]:
    """The arrays of a draw of each objective, on a mesh of the devices with these numbers."""
    devices, batch_BL = [jax.devices()[i] for i in order], tokens((BATCH, LENGTH), TRUNK.vocab_size)
    mesh = make_mesh(shape[0], shape[1], devices, *shape[2:])
    assert list(mesh.devices.flat) == devices
    with jax.set_mesh(mesh):
        drawn = jax.jit(lambda x_BL: [draw(jax.random.key(7), x_BL, one, TRUNK.vocab_size) for one in DRAWN])
        draws = jax.device_get(drawn(put(mesh, batch_BL)))
    return {one.label: jax.tree.leaves(arrays) for one, arrays in zip(DRAWN, draws, strict=True)}


@pytest.mark.parametrize("mesh", [(8, 1), (1, 8), (4, 2), (2, 2), (2, 2, 2)], ids=lambda mesh: "x".join(map(str, mesh)))
def test_draws_are_identical_on_any_mesh_and_order_of_devices(mesh):
    found, expected = draws_on(mesh, PERMUTED[: math.prod(mesh)]), draws_on((1, 1), (0,))
    assert len(found) == len(DRAWN)
    for label, arrays in expected.items():
        for one, other in zip(found[label], arrays, strict=True):
            last_bit = 2**-23 if one.dtype == np.float32 else 0.0  # a mesh may fuse the product of two weights
            np.testing.assert_allclose(one, other, rtol=last_bit, atol=0, err_msg=label)


@pytest.mark.parametrize("mesh", [(8, 1), (1, 8), (4, 2), (2, 2, 2)], ids=lambda mesh: "x".join(map(str, mesh)))
def test_each_row_of_a_batch_is_read_once(mesh):
    batch_BL, asked = tokens((BATCH, LENGTH), TRUNK.vocab_size), []

    def read(first, last):
        asked.extend(range(first, last))
        return batch_BL[first:last]

    data, model, replica = (*mesh, 1)[:3]
    on_mesh_BL = global_batch(make_mesh(data, model, None, replica), (BATCH, LENGTH), read)
    np.testing.assert_array_equal(on_mesh_BL, batch_BL)
    assert sorted(asked) == list(range(BATCH))


RENEW = f"""
Five steps of a tiny run no longer give the numbers in {GOLDEN.name}: training itself has changed, for every user.
If you did not mean to change initialisation, noise, loss, optimiser or schedule, this is a bug. If you did, say so in
CHANGELOG.md and renew the file: `PYTHONPATH=tests/support python tests/mdm_jax/devices/{Path(__file__).name}` does.
"""


def golden_of(family: Family) -> dict:
    """Losses and gradients' norms of the steps, and the Euclidean norm of each weight after the last."""
    run = trained(family)
    norms = {name: float(np.linalg.norm(weight)) for name, weight in run.params[-1].items()}
    return {"loss": run.loss, "grad_norm": run.grad_norm, "norm": norms}


@BOTH
def test_golden_steps(family):
    expected, actual = json.loads(GOLDEN.read_text())[family], golden_of(family)
    assert actual["norm"].keys() == expected["norm"].keys(), RENEW
    assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-5), RENEW
    assert actual["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5), RENEW
    assert actual["norm"] == pytest.approx(expected["norm"], rel=1e-5), RENEW


def test_families_differ_in_objective_and_attention_alone():
    one, other = (dataclasses.asdict(spec_of(family)) for family in Family)
    assert {name for name in one if one[name] != other[name]} == {"objective", "model"}
    assert {name for name in one["model"] if one["model"][name] != other["model"][name]} == {"attention"}


if __name__ == "__main__":
    with quick_compilation():
        GOLDEN.write_text(json.dumps({family.value: golden_of(family) for family in Family}, indent=1) + "\n")
