"""Preflight by the real TPU compiler: the 1028M and 2121M models on slices of 16 chips, on a machine without one.

All slow tests together took 33 minutes on two busy cores, a compilation one to three; those that only lower are quick.
"""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tiny_runs import run_spec

from isoflop.ladder import find_size
from isoflop.planfile import write_plan
from isoflop.preflight import __main__ as preflight
from isoflop.preflight.collectives import read_collectives
from isoflop.preflight.compile import NO_TPU_QUERIES, Setting, compile_run
from isoflop.preflight.topology import CHIPS, find_topology
from mdm_jax.objectives.vocab_loss import ACCELERATOR_CHUNK_ROWS
from mdm_jax.spec import CellSpec, ComputeDtype, Family, HardwareSpec, ModelSpec, OptimSpec, Remat, to_json
from mdm_jax.spec.counting import count_parameters

GIB, MEGABYTE = 2**30, 1e6
TIME_LIMIT = 1500.0

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler here: pip install mdm-jax[tpu]"
)


def run_of(size, family=Family.MDM, batch=256, mesh=(16, 1), remat=Remat.FULL):
    model = find_size(size).model(ModelSpec(vocab_size=32000, compute_dtype=ComputeDtype.BFLOAT16))
    hardware = HardwareSpec(mesh_data=mesh[0], mesh_model=mesh[1], remat=remat)
    optim, cell = OptimSpec(global_batch=batch), CellSpec(budget=1e20, size=size)
    return run_spec(family, model, 2048, optim=optim, hardware=hardware, cell=cell)


OWN_FIGURE = """
import sys
from jax.experimental.topologies import get_topology_desc
from mdm_jax.spec import from_json
from mdm_jax.train.ahead import lower_step
stats = lower_step(from_json(sys.argv[1]), get_topology_desc(sys.argv[2], "tpu").devices).compile().memory_analysis()
sizes = (stats.argument_size_in_bytes, stats.temp_size_in_bytes, stats.output_size_in_bytes, -stats.alias_size_in_bytes)
print(sum(sizes))
"""


def in_a_process(program, *arguments):
    """The last line that a program prints which sees the TPU's compiler and no accelerator."""
    environment = {**os.environ, **NO_TPU_QUERIES, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "topology", "batch"),
    [("1028", "v5e:4x4", 64), ("1028", "v5p:2x2x4", 64), ("2121", "v5e:4x4", 64), ("2121", "v5p:2x2x4", 64)],
)
def test_the_memory_figure_is_the_compilers_and_fits(tmp_path, capsys, size, topology, batch):
    run, limit = run_of(size, batch=batch), find_topology(topology).chip.hbm_bytes
    write_plan(tmp_path, [run])
    assert preflight.main([str(tmp_path), "--topology", topology, "--quick"]) == 0, capsys.readouterr().err
    (shape,) = json.loads((tmp_path / "preflight.json").read_text())["shapes"]
    planned = shape["planned"]
    assert shape["fits"] is True
    assert planned["hbm_bytes"] == float(in_a_process(OWN_FIGURE, to_json(run), topology))
    assert 12 * run.model.n_layers * run.model.d_model**2 / 16 < planned["hbm_bytes"] < limit
    layers, kinds = run.model.n_layers, planned["collectives"]
    assert kinds["all-gather"]["times"] == 10 * layers + 2  # five weights, forward and backward; embedding and head
    assert kinds["collective-permute"]["times"] >= 15 * 5 * layers  # gradients in rings of 16
    assert planned["roofline"]["binds"] == "compute"


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_what_does(tmp_path, capsys):
    """The paper's batch of the 1028M model without rematerialisation needs 90 GiB of a v5e chip's 16."""
    write_plan(tmp_path, [run_of("1028", remat=Remat.NONE)])
    assert preflight.main([str(tmp_path), "--topology", "v5e:4x4"]) == 1
    said = capsys.readouterr()
    assert "mdm 1028, batch 256: does not fit" in said.err
    assert re.search("take hardware.remat=full (hardware.remat_layers=.* )?hardware.microbatches=1 ", said.err)
    (shape,) = json.loads((tmp_path / "preflight.json").read_text())["shapes"]
    assert shape["fits"] is False
    assert shape["best"]["hbm_bytes"] < 15.75 * GIB


LOWERED = """
import sys
from jax.experimental.topologies import get_topology_desc
from mdm_jax.spec import from_json
from mdm_jax.train.ahead import lower_step
lowered = lower_step(from_json(sys.argv[1]), get_topology_desc("v5e:2x2", "tpu").devices)
print(lowered.as_text().count("@tpu_custom_call"))
"""


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("mesh", [(2, 2), (4, 1)], ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_both_families_take_the_tpus_kernel_forward_and_backward(family, mesh):
    run = run_of("6", family, batch=16, mesh=mesh, remat=Remat.NONE)
    kernels = int(in_a_process(LOWERED, to_json(run)))
    assert kernels == 3  # the forward pass, and the gradients of queries and of keys and values


@pytest.mark.slow
@pytest.mark.parametrize("chip", list(CHIPS))
def test_the_compiler_knows_every_chip_and_its_limit(chip):
    """The smallest slice of each, and the memory that the compiler grants a program that asks for too much."""
    topology = find_topology(f"{chip}:{CHIPS[chip].shapes[1]}")
    devices = topology.devices
    answer = compile_run(run_of("6", batch=32, mesh=(devices, 1)), topology, TIME_LIMIT)
    assert (answer.failed, answer.refused) == ("", "")
    large = run_of("2121", batch=2048, mesh=(devices, 1), remat=Remat.NONE)
    refused = compile_run(Setting(Remat.NONE, 1).of(large), topology, TIME_LIMIT)
    assert f"({topology.chip.hbm_bytes / GIB:.2f}G)" in refused.refused
    assert refused.hbm_bytes > topology.chip.hbm_bytes


def compiled_program(topology, run):
    """The text of the run's compiled step, and the bytes of its arguments on one device."""
    with tempfile.TemporaryDirectory() as scratch:
        hlo = Path(scratch, "step.hlo")
        job = {"spec": to_json(run), "topology": topology, "hlo": str(hlo)}
        environment = {**os.environ, **NO_TPU_QUERIES, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "mdm_jax.train.ahead"]
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert not answer["refused"]
        return hlo.read_text(), answer["memory"]["arguments"]


def rows_over_the_vocabulary(program, words):
    """Rows of the largest array that has a number for each word: its size over the vocabulary's."""
    shapes = [[int(n) for n in shape.split(",")] for shape in re.findall(r"\b(?:bf16|[fsu]\d+)\[([\d,]+)\]", program)]
    return max(math.prod(shape) // words for shape in shapes if {words, words + 1} & set(shape))


@pytest.mark.slow
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("topology", ["v5e:4x4", "v5p:2x2x4"])
def test_nothing_large_is_whole_on_a_device(topology, family):
    """No state is replicated, no array holds all logits, and no gradient of a weight is all-reduced."""
    run = run_of("1028", family)
    program, arguments = compiled_program(topology, run)
    state = 3 * 4 * count_parameters(run.model).total
    assert state / 16 < arguments < 1.02 * state / 16
    scored = 16 * 2048 // (2 if family is Family.MDM else 1)  # rows of one device
    chunk = 1.01 * ACCELERATOR_CHUNK_ROWS  # equal chunks of about so many rows
    assert run.model.d_model <= rows_over_the_vocabulary(program, 32000) <= chunk < scored / 1.9
    reduced = [one for one in read_collectives(program, 16) if one.kind == "all-reduce"]
    assert 0 < max(one.whole_bytes for one in reduced) < MEGABYTE  # gains of norms, and numbers of the whole step
