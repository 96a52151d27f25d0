"""One process of a run: takes the flags of mdm_jax.main, and prints the SHA-256 of the first global batches."""

import hashlib
import json

import jax
from jax.experimental import multihost_utils

from mdm_jax.data.pipeline import train_batches
from mdm_jax.main import parser, requested
from mdm_jax.sharding import global_batch, make_mesh

STEPS = 5

flags = parser().parse_args()
spec, _ = requested(flags)
if flags.coordinator:
    jax.distributed.initialize(flags.coordinator, flags.processes, flags.process_index)
mesh = make_mesh(spec.hardware.mesh_data, spec.hardware.mesh_model)
mine = train_batches(spec.data, spec.optim.global_batch, spec.seed, 0, jax.process_index(), jax.process_count())
digests = []
for _ in range(STEPS):
    batch_BL = multihost_utils.process_allgather(global_batch(mesh, next(mine)), tiled=True)
    assert batch_BL.shape == (spec.optim.global_batch, spec.data.seq_len)
    digests.append(hashlib.sha256(batch_BL.tobytes()).hexdigest())
print(json.dumps(digests))
