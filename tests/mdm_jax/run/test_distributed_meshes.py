"""Batches, masks and losses are the same on every mesh, whichever process owns which of its devices.

`jax.make_mesh` lays a mesh along the wires of a TPU slice, so that a host's devices are often not neighbours in it. CPU
devices of real processes take the places that the hosts of a v5e:4x4 have; the TPU compiler, where it is installed, is
asked whether these are the places.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import ROOT, Workshop, ended, free_address

from isoflop.preflight.compile import NO_TPU_QUERIES
from mdm_jax.data.corpus import open_corpus
from mdm_jax.devices.sharding import global_batch, make_mesh
from mdm_jax.objectives.loss import draw
from mdm_jax.spec import EvaluationSpec, Family, ModelSpec, OptimSpec, RunSpec, to_json
from mdm_jax.train.drawing import noise_key

PROGRAM = str(ROOT / "tests/programs/on_meshes.py")
BATCH, STEPS = 32, 5
TOLERANCE = 1e-5
HOSTS = {
    (16, 1): [0, 0, 1, 1, 1, 1, 0, 2, 3, 3, 3, 3, 2, 2, 2, 0],
    (8, 2): [0, 0, 0, 0, 2, 2, 2, 2, 1, 1, 1, 1, 3, 3, 3, 3],
    (4, 4): [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3],
    (1, 16): [0, 0, 1, 1, 1, 1, 0, 2, 3, 3, 3, 3, 2, 2, 2, 0],
}
"""The host of each device of a v5e:4x4 in the order of the mesh, row by row."""


def spec_of(shop: Workshop) -> RunSpec:
    """A run that every mesh of up to 16 devices takes."""
    return dataclasses.replace(
        shop.spec(Family.MDM),
        model=ModelSpec(n_layers=1, d_model=32, n_heads=16, d_ffn=32),
        optim=OptimSpec(lr_peak=0.01, global_batch=BATCH),
        evaluation=EvaluationSpec(eval_tokens=1024, mc_samples=2, batch=BATCH),
    )


def case(mesh: tuple[int, ...], order: list[int], draws: bool = True, steps: int = 0) -> dict[str, Any]:
    return {"mesh": mesh, "order": order, "draws": draws, "steps": steps}


def on_processes(shop: Workshop, cases: list[dict[str, Any]], processes: int, devices: int) -> list[list[dict]]:
    """What each process of the program says about each case."""
    job = {"coordinator": free_address(), "processes": processes, "spec": to_json(spec_of(shop)), "cases": cases}
    environment = {**shop.environment(spec_of(shop)), "JAX_NUM_CPU_DEVICES": str(devices)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, PROGRAM, json.dumps(job | {"index": i})], env=environment, **pipes)
        for i in range(processes)
    ]
    try:
        ends = [ended(process) for process in started]
    finally:
        for process in started:
            process.kill()  # those that wait for one that failed
    assert [end.code for end in ends] == [0] * processes, [end.said for end in ends]
    return [[json.loads(line) for line in end.out.splitlines() if line.startswith("{")] for end in ends]


@functools.cache
def whole(spec: RunSpec, step: int) -> dict[str, np.ndarray]:
    """The batch and its draw on one device of this process."""
    rows = open_corpus(spec.data).training_rows(BATCH, spec.seed)
    tokens_BL = rows.read(step, 0, BATCH)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    with jax.set_mesh(mesh):
        on_mesh_BL = global_batch(mesh, rows.shape, lambda first, last: tokens_BL[first:last])
        drawn = draw(noise_key(spec.seed, jnp.int32(step)), on_mesh_BL, spec.objective, spec.model.vocab_size)
        return {
            "tokens_BL": tokens_BL,
            "inputs_BL": np.asarray(drawn.inputs_BL),
            "weight_BL": np.asarray(drawn.weight_BL),
        }


def assert_rows_of_the_whole(spec: RunSpec, shards: int, said: list[dict]) -> None:
    """The processes' shards of one case are those of the batches, and none is missing."""
    size = BATCH // shards
    for step in range(2):
        for name in said[0]["held"][step]:
            found = {(first, digest) for process in said for first, digest in process["held"][step][name]}
            expected = whole(spec, step)[name]
            digests = [hashlib.sha256(expected[i : i + size].tobytes()).hexdigest() for i in range(0, BATCH, size)]
            assert found == {(i * size, digest) for i, digest in enumerate(digests)}, (name, step)


def order_of(hosts: list[int], devices: int) -> list[int]:
    """Places in `jax.devices()` that give each host's devices the places in the mesh that it has."""
    left = {host: iter(range(host * devices, (host + 1) * devices)) for host in set(hosts)}
    return [next(left[host]) for host in hosts]


PERMUTED = {
    (4, 1): [0, 2, 3, 1],  # the rows of a process are no block
    (2, 2): [0, 2, 1, 3],  # the model axis spans the processes
    (1, 4): [3, 0, 2, 1],
    (2, 1, 2): [0, 3, 1, 2],  # each replica spans the processes
    (1, 2, 2): [2, 3, 1, 0],  # each process is a replica
}


def test_two_processes_read_and_mask_alike_on_every_mesh(shop) -> None:
    said = on_processes(shop, [case(mesh, order) for mesh, order in PERMUTED.items()], 2, 2)
    for i, mesh in enumerate(PERMUTED):
        assert_rows_of_the_whole(spec_of(shop), math.prod((mesh[0], *mesh[2:])), [process[i] for process in said])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", PERMUTED, ids=lambda mesh: "x".join(map(str, mesh)))
def test_two_processes_train_and_evaluate_alike_on_every_mesh(shop, mesh) -> None:
    ((alone,),) = on_processes(shop, [case((1, 1), [0], draws=False, steps=STEPS)], 1, 1)
    for (done,) in on_processes(shop, [case(mesh, PERMUTED[mesh], draws=False, steps=STEPS)], 2, 2):
        assert done["losses"] == pytest.approx(alone["losses"], rel=TOLERANCE)
        assert done["evaluation"][0] == pytest.approx(alone["evaluation"][0], rel=TOLERANCE)
        assert done["evaluation"][1:] == pytest.approx(alone["evaluation"][1:], rel=1e-3)


def test_hosts_of_a_torus_read_the_batches_of_one_process(shop) -> None:
    said = on_processes(shop, [case(mesh, order_of(hosts, 4), draws=False) for mesh, hosts in HOSTS.items()], 4, 4)
    for i, mesh in enumerate(HOSTS):
        assert_rows_of_the_whole(spec_of(shop), mesh[0], [process[i] for process in said])
    first_rows = [first for first, _ in said[0][0]["held"][0]["tokens_BL"]]
    assert sorted(first_rows) == [0, 2, 12, 30]  # rows 0, 1, 6 and 15 of the mesh, two of the batch in each


LAID_OUT = """
import json, sys
from jax.experimental.topologies import get_topology_desc
from mdm_jax.devices.sharding import make_mesh
devices = get_topology_desc("v5e:4x4", "tpu").devices
for data, model in json.loads(sys.argv[1]):
    print(json.dumps([device.process_index for device in make_mesh(data, model, devices).devices.flat]))
"""


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no TPU compiler here: pip install mdm-jax[tpu]")
def test_the_torus_is_laid_out_as_the_test_above_assumes() -> None:
    environment = {**os.environ, **NO_TPU_QUERIES, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LAID_OUT, json.dumps(list(HOSTS))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == list(HOSTS.values())
