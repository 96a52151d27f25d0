"""Compares the first states that are drawn on the host with those of the plain program; prints a line for each model.

python tests/programs/first_state.py
"""

import jax
import numpy as np

from mdm_jax.devices.sharding import make_mesh
from mdm_jax.spec import ModelSpec, RunSpec
from mdm_jax.train.state import init_state, make_state

for layers, d_model in ((1, 8), (2, 20), (2, 64)):
    model = ModelSpec(n_layers=layers, d_model=d_model, n_heads=2, d_ffn=4 * d_model)
    spec = RunSpec(model=model, seed=d_model)
    with jax.set_mesh(make_mesh(1, 1, jax.devices()[:1])):
        drawn, plain = init_state(spec), jax.jit(lambda spec=spec: make_state(spec))()
    pairs = zip(jax.tree.leaves(drawn), jax.tree.leaves(plain), strict=True)
    print(layers, d_model, sum(int((np.asarray(one) != np.asarray(two)).sum()) for one, two in pairs))
