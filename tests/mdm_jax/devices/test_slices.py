"""Meshes over several TPU slices: whole replicas in one slice, whatever the order of the devices."""

from dataclasses import dataclass

import jax
import pytest

from mdm_jax.devices.sharding import by_slice, make_mesh
from mdm_jax.spec import EvaluationSpec, HardwareSpec, ModelSpec, OptimSpec, RunSpec


@dataclass(frozen=True)
class Chip:
    """As much of a TPU device as tells its slice."""

    id: int
    slice_index: int
    platform: str = "tpu"


@dataclass(frozen=True)
class ChipOfOneSlice:
    """A device of a topology that is compiled for ahead of time, which has no `slice_index` if it is one slice."""

    id: int
    platform: str = "tpu"


CHIPS = [Chip(5, 1), Chip(0, 0), Chip(3, 0), Chip(6, 1), Chip(1, 0), Chip(7, 1), Chip(2, 0), Chip(4, 1)]


def test_devices_go_to_their_slice_in_the_order_given():
    first, second = by_slice(CHIPS)
    assert [chip.id for chip in first] == [0, 3, 1, 2]
    assert [chip.id for chip in second] == [5, 6, 7, 4]
    assert by_slice(jax.devices()) == [jax.devices()]  # CPUs have no slices
    chips = [ChipOfOneSlice(1), ChipOfOneSlice(0)]
    assert by_slice(chips) == [chips]


@pytest.mark.parametrize(
    ("mesh", "chips"),
    [((8, 1, 1), CHIPS), ((2, 1, 3), CHIPS[:6]), ((1, 1, 8), [Chip(i, int(i < 3)) for i in range(8)])],
    ids=["one replica", "three replicas", "unequal slices"],
)
def test_a_replica_in_two_slices_is_refused(mesh, chips):
    data, model, replica = mesh
    with pytest.raises(ValueError, match=rf"mesh of {replica} replicas: the devices are 2 slices .*mesh_replica=2,"):
        make_mesh(data, model, chips, replica)


def test_the_message_about_the_number_of_devices_names_the_replicas():
    with pytest.raises(ValueError, match="mesh 3 x 2 x 1: needs 6 devices and there are 4"):
        make_mesh(2, 1, jax.devices()[:4], replica=3)
    with pytest.raises(ValueError, match="mesh 2 x 1: needs 2 devices and there are 4"):
        make_mesh(2, 1, jax.devices()[:4])


@pytest.mark.parametrize(
    ("width", "hardware", "shape"),
    [
        (576, HardwareSpec(mesh_data=128), (2, 64, 1)),  # the 48M model
        (576, HardwareSpec(mesh_data=64), (1, 64, 1)),
        (576, HardwareSpec(mesh_data=64, mesh_model=3), (1, 64, 3)),
        (576, HardwareSpec(mesh_data=64, mesh_model=9), (1, 64, 9)),
        (576, HardwareSpec(mesh_data=128, mesh_replica=2), (4, 64, 1)),
        (630, HardwareSpec(mesh_data=128), (64, 2, 1)),
        (576, HardwareSpec(), (1, 1, 1)),
    ],
)
def test_the_weights_are_split_over_as_many_devices_as_divide_the_width(width, hardware, shape):
    model = ModelSpec(d_model=width, n_heads=9, d_ffn=4 * width)
    batch = 2 * hardware.row_shards
    evaluation = EvaluationSpec(batch=batch)
    spec = RunSpec(model, optim=OptimSpec(global_batch=batch), evaluation=evaluation, hardware=hardware)
    assert spec.mesh_shape == shape
    replica, data, parts = shape
    assert width % (data * parts) == 0
    assert replica * data * parts == hardware.devices
