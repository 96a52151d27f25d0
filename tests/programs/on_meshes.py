"""One process of several: reads batches, draws masks, trains and evaluates on meshes of all devices in any order.

Takes one JSON object: `coordinator`, `processes`, `index`, `spec` (a line of a plan) and `cases`, each a `mesh` of
`[data, model]` or `[data, model, replica]` devices, their `order` (places in `jax.devices()`), `draws` (whether masks
are drawn) and `steps` to train. Prints a JSON line for each case: first row and SHA-256 of this process's shards of
each array, and what training gives.
"""

import dataclasses
import functools
import hashlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.data.corpus import TrainingRows, open_corpus
from mdm_jax.devices.sharding import global_batch, run_mesh
from mdm_jax.evaluate.nelbo import evaluate
from mdm_jax.objectives.loss import draw
from mdm_jax.spec import RunSpec, from_json
from mdm_jax.train.drawing import noise_key
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step

BATCHES = 2


def shards(x: jax.Array) -> list[tuple[int, str]]:
    """First row and SHA-256 of each shard that this process holds."""
    found = [(shard.index[0].start or 0, np.asarray(shard.data)) for shard in x.addressable_shards]
    return [(first, hashlib.sha256(rows.tobytes()).hexdigest()) for first, rows in found]


def held(spec: RunSpec, mesh: jax.sharding.Mesh, rows: TrainingRows, draws: bool) -> list[dict]:
    """The shards of the first batches and of their draws."""
    drawn = jax.jit(lambda key, x_BL: draw(key, x_BL, spec.objective, spec.model.vocab_size))
    found = []
    for step in range(BATCHES):
        tokens_BL = global_batch(mesh, rows.shape, functools.partial(rows.read, step))
        found.append({"tokens_BL": shards(tokens_BL)})
        if draws:
            made = drawn(noise_key(spec.seed, jnp.int32(step)), tokens_BL)
            found[-1] |= {name: shards(getattr(made, name)) for name in ("inputs_BL", "weight_BL")}
    return found


def trained(spec: RunSpec, mesh: jax.sharding.Mesh, rows: TrainingRows, steps: int) -> dict[str, list[float]]:
    """The losses of the steps, and the loss and errors of the evaluation after them."""
    state, step_fn, rate = init_state(spec), compile_step(spec), learning_rate(spec.optim, spec.schedule)
    losses = []
    for step in range(steps):
        state, scalars = step_fn(state, global_batch(mesh, rows.shape, functools.partial(rows.read, step)), rate)
        losses.append(float(scalars["loss"]))
    eval_SL = open_corpus(spec.data).evaluation_rows(spec.evaluation.eval_tokens)
    measured = evaluate(state.evaluated, spec, eval_SL, mesh)
    return {"losses": losses, "evaluation": [measured.loss, measured.se_mc, measured.se_data]}


def answer(planned: RunSpec, case: dict) -> dict:
    """What this process holds of the first batches, and what training gives."""
    data, model, replica = [*case["mesh"], 1][:3]
    hardware = dataclasses.replace(planned.hardware, mesh_data=data, mesh_model=model, mesh_replica=replica)
    spec = dataclasses.replace(planned, hardware=hardware)
    rows = open_corpus(spec.data).training_rows(spec.optim.global_batch, spec.seed)
    mesh = run_mesh(spec, [jax.devices()[i] for i in case["order"]])
    with jax.set_mesh(mesh):
        result = trained(spec, mesh, rows, case["steps"]) if case["steps"] else {}
        return {"held": held(spec, mesh, rows, case["draws"])} | result


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    if job["processes"] > 1:
        jax.distributed.initialize(job["coordinator"], job["processes"], job["index"])
    for case in job["cases"]:
        print(json.dumps(answer(from_json(job["spec"]), case)), flush=True)
