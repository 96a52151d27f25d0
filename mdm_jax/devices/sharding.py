"""The device mesh and every PartitionSpec of the project. No other file writes an axis name.

The mesh has three explicit axes. `replica` splits the batch; each replica has all weights, and only gradients go from
one to another, so replicas may be slices that a slow network connects. `data` splits the batch of a replica, its
parameters and its optimiser state (FSDP). `model` splits heads, ffn and vocabulary. On one device all axes have size 1,
and the program is the same. Names of layouts use the shape suffixes of the code: B batch, L length, D model, H heads,
K head dim, F ffn, V vocabulary, N layers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, reshard

from mdm_jax.devices.precision import platform
from mdm_jax.spec import RunSpec

T = TypeVar("T")
REPLICA, DATA, MODEL = "replica", "data", "model"
ROWS = (REPLICA, DATA)
"""The axes that split the rows of a batch. An array without rows is the same in every replica."""

REPLICATED = PartitionSpec()
BATCH = PartitionSpec(ROWS)
BATCH_L = PartitionSpec(ROWS, None)
BATCH_LD = PartitionSpec(ROWS, None, None)
BATCH_LHK = PartitionSpec(ROWS, None, MODEL, None)
BATCH_HLK = PartitionSpec(ROWS, MODEL, None, None)
BATCH_LCHK = PartitionSpec(ROWS, None, None, MODEL, None)
BATCH_LF = PartitionSpec(ROWS, None, MODEL)
MICRO_BATCH_L = PartitionSpec(None, ROWS, None)
HEAD_DV = PartitionSpec(DATA, MODEL)

STORED = {
    "embed": PartitionSpec(None, (DATA, MODEL)),
    "head": HEAD_DV,
    "norm_final": REPLICATED,
    "norm_attention": REPLICATED,
    "norm_mlp": REPLICATED,
    "modulation": REPLICATED,
    "time_in": REPLICATED,
    "time_out": REPLICATED,
    "qkv": PartitionSpec(None, DATA, None, MODEL, None),
    "out": PartitionSpec(None, MODEL, None, DATA),
    "gate": PartitionSpec(None, DATA, MODEL),
    "up": PartitionSpec(None, DATA, MODEL),
    "down": PartitionSpec(None, MODEL, DATA),
}
"""The layout of each weight between steps. The weights of all layers are stacked on a leading axis."""


def make_mesh(data: int, model: int, devices: Sequence[Any] | None = None, replica: int = 1) -> Mesh:
    """A `replica` x `data` x `model` mesh with explicit axes over the given devices (all devices by default).

    Devices of several TPU slices may come in any order: whole replicas lie in one slice, and jax lays each slice's part
    of the mesh along its wires.

    Raises:
        ValueError: the product is not the number of devices, or a replica would lie in two slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    needed = replica * data * model
    if needed != len(devices):
        replicas = f"{replica} x " if replica > 1 else ""
        raise ValueError(f"mesh {replicas}{data} x {model}: needs {needed} devices and there are {len(devices)}")
    slices = by_slice(devices)
    if replica % len(slices) or len({len(one) for one in slices}) > 1:
        sizes = ", ".join(str(len(one)) for one in slices)
        raise ValueError(
            f"mesh of {replica} replicas: the devices are {len(slices)} slices (of {sizes}), and each must hold as many"
            f" whole replicas as the others: set hardware.mesh_replica={len(slices)}, and hardware.mesh_data to the"
            " devices of one slice"
        )
    names, types = (REPLICA, DATA, MODEL), (AxisType.Explicit,) * 3
    shape = (replica // len(slices), data, model)
    parts = [jax.make_mesh(shape, names, axis_types=types, devices=one) for one in slices]
    return parts[0] if len(parts) == 1 else Mesh(np.concatenate([part.devices for part in parts]), names, types)


def by_slice(devices: Sequence[Any]) -> list[list[Any]]:
    """The devices of each TPU slice, in the order given.

    Devices without a slice's number, and those that are no TPUs, count as one slice. The `slice_index`
    of other accelerators does not number TPU slices.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0) if device.platform == "tpu" else 0, []).append(device)
    return [slices[index] for index in sorted(slices)]


def run_mesh(spec: RunSpec, devices: Sequence[Any] | None = None) -> Mesh:
    """The run's mesh over the given devices (all devices by default).

    Raises:
        ValueError: see `make_mesh`.
    """
    replica, data, model = spec.mesh_shape
    return make_mesh(data, model, devices, replica)


def row_shards(mesh: Mesh) -> int:
    """The number of parts into which the mesh splits the rows of a batch."""
    return mesh.shape[REPLICA] * mesh.shape[DATA]


def stored_specs(tree: Any) -> Any:
    """The PartitionSpec of every leaf, found by the weight's name in the leaf's path."""

    def spec(path: tuple[Any, ...], _: Any) -> PartitionSpec:
        names = [str(getattr(entry, "name", getattr(entry, "key", ""))) for entry in path]
        return next((STORED[name] for name in reversed(names) if name in STORED), REPLICATED)

    return jax.tree_util.tree_map_with_path(spec, tree)


def place(tree: Any) -> Any:
    """The tree with every leaf in its stored layout. Call it under `jit`, with an ambient mesh."""
    return jax.tree.map(reshard, tree, stored_specs(tree))


def abstract_arrays(mesh: Mesh, make: Callable[[], T]) -> T:
    """The result of `make` as shapes, each with its layout on the mesh. Nothing is allocated."""

    def leaf(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = REPLICATED if x.sharding is None else x.sharding.spec
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    with jax.set_mesh(mesh):
        return jax.tree.map(leaf, jax.eval_shape(make))


def layout(x: jax.Array) -> PartitionSpec:
    """The PartitionSpec of an array, traced or not."""
    return jax.typeof(x).sharding.spec


def gather(weight: jax.Array) -> jax.Array:
    """The FSDP all-gather of a weight, in its present dtype: whole over `data`, still split over `model`."""
    return reshard(weight, PartitionSpec(*(None if axis == DATA else axis for axis in layout(weight))))


def over_shards(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`function`, run by every device of the ambient mesh on its own shard."""
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def gather_shards(x: jax.Array) -> jax.Array:
    """Inside `over_shards`: the shards of all devices along `data`, one after the other on the first axis."""
    return x if jax.lax.axis_size(DATA) == 1 else jax.lax.all_gather(x, DATA, tiled=True)


def sum_and_scatter(x: jax.Array, axis: int = 0) -> jax.Array:
    """Inside `over_shards`: this device's shard, along `axis`, of the sum over all rows of the batch.

    The replicas add only the shards, so that little goes between slices. On an axis of one device nothing is called,
    because XLA:CPU would copy the array.
    """
    if jax.lax.axis_size(DATA) > 1:
        tpu = platform() == "tpu"
        x = sum_in_a_ring(x, axis) if tpu else jax.lax.psum_scatter(x, DATA, scatter_dimension=axis, tiled=True)
    return x if jax.lax.axis_size(REPLICA) == 1 else jax.lax.psum(x, REPLICA)


def sum_in_a_ring(x: jax.Array, axis: int) -> jax.Array:
    """Inside `over_shards`: this device's shard, along `axis`, of the sum over `data`.

    The sum of each shard goes around the ring of devices to the device that keeps it, one half of it in each direction.
    On more than four chips, the TPU's compiler makes an all-reduce of the whole array from `psum_scatter`, which sends
    twice as much and holds the whole sum on each chip.
    """
    devices, mine = jax.lax.axis_size(DATA), jax.lax.axis_index(DATA)
    across = max((other for other in range(x.ndim) if other != axis), key=lambda other: x.shape[other])
    middle = x.shape[across] // 2
    ways = ((1, 0, middle), (-1, middle, x.shape[across]))

    def part(shard: jax.Array, first: int, last: int) -> jax.Array:
        start, size = [jnp.int32(0)] * x.ndim, list(x.shape)
        size[axis], size[across] = x.shape[axis] // devices, last - first
        start[axis], start[across] = shard % devices * size[axis], jnp.int32(first)
        return jax.lax.dynamic_slice(x, start, size)

    def hop(number: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(
            jax.lax.ppermute(sum_, DATA, [(i, (i + way) % devices) for i in range(devices)])
            + part(mine - way * (number + 1), first, last)
            for sum_, (way, first, last) in zip(sums, ways, strict=True)
        )

    sums = tuple(part(mine - way, first, last) for way, first, last in ways)
    return jnp.concatenate(jax.lax.fori_loop(1, devices, hop, sums), across)


def rows_spec(rank: int) -> PartitionSpec:
    """The layout that splits the leading axis, the rows, and keeps the other axes whole."""
    return PartitionSpec(ROWS, *[None] * (rank - 1))


def split_over_data(tree: T) -> T:
    """The arrays of the tree with their leading axis, the rows, split over the devices. Call it under `jit`."""
    return jax.tree.map(lambda x: reshard(jnp.asarray(x), rows_spec(jnp.ndim(x))), tree)


def by_row(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of each row, from arrays whose leading axis is B. No row sees another one."""
    return over_shards(jax.vmap(function), BATCH, BATCH)(*trees)


def at_position(x_BLx: jax.Array, position_B: jax.Array) -> jax.Array:
    """`x` at one position of each row, `[B, ...]`, without communication between devices."""
    return by_row(lambda x_Lx, position: x_Lx[position], x_BLx, position_B)


def global_batch(mesh: Mesh, shape: tuple[int, int], read: Callable[[int, int], np.ndarray]) -> jax.Array:
    """The global `[B, L]` batch. Its content does not depend on the mesh or on the number of processes.

    Args:
        mesh: mesh that splits the rows. Its devices may belong to several processes, in any order.
        shape: `(B, L)`, over all processes.
        read: `read(first, last)` returns rows `first … last - 1` of the batch. Each process reads the rows of its own
            devices, and reads rows that several of its devices share only once.
    """
    if mesh.is_multi_process:
        return _from_rows_of_this_process(mesh, shape, read)
    return jax.device_put(read(0, shape[0]), NamedSharding(mesh, BATCH_L))


def _from_rows_of_this_process(mesh: Mesh, shape: tuple[int, int], read: Callable[[int, int], np.ndarray]) -> jax.Array:
    """The global batch, of which each process reads the rows of its own devices."""
    read_once = functools.cache(read)

    def shard(index: Any) -> np.ndarray:
        first, last, _ = index[0].indices(shape[0])
        return read_once(first, last)

    return jax.make_array_from_callback(shape, NamedSharding(mesh, BATCH_L), shard)


def stack_batches(mesh: Mesh, tokens_NBL: np.ndarray) -> jax.Array:
    """N global batches as one array, split over the rows of each batch. Every process has all tokens."""
    sharding = NamedSharding(mesh, MICRO_BATCH_L)
    return jax.make_array_from_callback(tokens_NBL.shape, sharding, lambda index: tokens_NBL[index])


def split_rows(x_NB: jax.Array) -> jax.Array:
    """One number for each row of N batches, split over the rows of each batch. Call it under `jit`."""
    return reshard(x_NB, PartitionSpec(None, ROWS))


def replicate(x: jax.Array) -> jax.Array:
    """The whole array on every device, so that every process can read it. Call it under `jit`."""
    return reshard(x, PartitionSpec(*[None] * x.ndim))


def split_microbatches(x_Bx: jax.Array, microbatches: int) -> jax.Array:
    """`[M, B / M, ...]`. Every microbatch takes rows from every shard, so that no row moves to another device."""

    def local(x_bx: jax.Array) -> jax.Array:
        return x_bx.reshape(microbatches, -1, *x_bx.shape[1:])

    rows = rows_spec(x_Bx.ndim)
    return over_shards(local, rows, PartitionSpec(None, *rows))(x_Bx)


def at_index(stacked: T, index: int | jax.Array) -> T:
    """The arrays of the tree at one index of their leading axis, which no device splits."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), stacked)


def from_pairs(x_BLx: jax.Array, position_PM: jax.Array) -> jax.Array:
    """`[B / 2, M, ...]`: `x` at M positions of each pair of neighbouring rows, 0 … 2L - 1. Each device has whole pairs.

    Args:
        position_PM: the positions, all different within a pair.
    """

    def local(x_bLx: jax.Array, position_pM: jax.Array) -> jax.Array:
        pairs = x_bLx.reshape(position_pM.shape[0], -1, *x_bLx.shape[2:])
        return jax.vmap(lambda x, i: x.at[i].get(mode="promise_in_bounds", unique_indices=True))(pairs, position_pM)

    rows = rows_spec(x_BLx.ndim)
    return over_shards(local, (rows, BATCH_L), rows)(x_BLx, position_PM)


def flat_rows(x_BLx: jax.Array) -> jax.Array:
    """`[B L, ...]`, split over the devices as the rows were."""

    def local(x_bLx: jax.Array) -> jax.Array:
        return x_bLx.reshape(-1, *x_bLx.shape[2:])

    return over_shards(local, rows_spec(x_BLx.ndim), rows_spec(x_BLx.ndim - 1))(x_BLx)


def largest_of_processes(values: np.ndarray) -> jax.Array:
    """The largest of each value over the processes, `[n]` on every process. Every process must call it.

    It returns at once, before the devices have compared the values.
    """
    devices = np.asarray(jax.devices())
    mesh = Mesh(devices, (DATA,), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(DATA, None))
    given = jax.make_array_from_callback((len(devices), len(values)), sharding, lambda index: values[None])
    with jax.set_mesh(mesh):
        return _largest(given)


@jax.jit
def _largest(values_Pn: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(values_Pn.max(0), REPLICATED)


def as_first_process(values: np.ndarray | None) -> np.ndarray:
    """The one-dimensional array of the first process, returned on every process; the others pass None."""
    if jax.process_count() == 1:
        assert values is not None
        return values
    length = int(multihost_utils.broadcast_one_to_all(np.int32(0 if values is None else len(values))))
    given = np.zeros(length, np.float32) if values is None else values
    return multihost_utils.broadcast_one_to_all(given) if length else given
