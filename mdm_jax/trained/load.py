"""`load(PATH)` opens a run's folder, one of SMDM's safetensors files, or a Hugging Face folder, on one device."""

import dataclasses
import os
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from mdm_jax.devices.absent_tpu import skip_absent_tpu
from mdm_jax.devices.sharding import abstract_arrays, make_mesh, place
from mdm_jax.files.layout import CHECKPOINTS_FOLDER, RESULT_FILE, SPEC_FILE, read_spec
from mdm_jax.files.results import read_result
from mdm_jax.files.storage import Kind, Path, as_path, is_file, kind
from mdm_jax.interop.hf.folder import is_hf_folder, read_hf
from mdm_jax.interop.model_file import Weights
from mdm_jax.interop.smdm.weights import read_smdm
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import ModelSpec
from mdm_jax.train.checkpoint import read_whole_step
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import make_state
from mdm_jax.train.step_folders import NONE, newest_whole
from mdm_jax.trained.model import Model
from mdm_jax.trained.weights import weight_name


def load(path: str | os.PathLike[str]) -> Model:
    """The trained model at a path.

    The path is that of a run's folder, which is opened at its newest whole checkpoint; of a safetensors file of SMDM's;
    or of a Hugging Face folder (see `mdm_jax.interop.hf`).

    Raises:
        ValueError: the path is none of the three, no checkpoint is whole, or the file has no such model; the message
            names the fault.
        OSError: a file cannot be read now.
    """
    folder_or_file = as_path(path)
    skip_absent_tpu()
    mesh = make_mesh(1, 1, jax.local_devices()[:1])
    is_folder = kind(folder_or_file, follow=True) is Kind.FOLDER
    if is_folder and (is_file(folder_or_file / SPEC_FILE) or not is_hf_folder(folder_or_file)):
        return _load_run(folder_or_file, mesh)
    file = read_hf(folder_or_file) if is_folder else read_smdm(folder_or_file)
    params = _from_weights(file.weights, file.spec, mesh)
    return Model(folder_or_file, params, file.spec, file.seq_len, mesh, has_start=file.has_start)


def _load_run(folder: Path, mesh: Mesh) -> Model:
    if not is_file(folder / SPEC_FILE):
        raise ValueError(
            f"{folder}: no run's folder: it has no {SPEC_FILE} (and a Hugging Face folder has config.json)"
        )
    run = read_spec(folder)
    recorded = is_file(folder / RESULT_FILE)
    data_hash = read_result(folder / RESULT_FILE).data_hash if recorded else run.data.data_hash
    step, bad = newest_whole(folder / CHECKPOINTS_FOLDER, Identity(run.spec_hash, data_hash))
    if step == NONE:
        found = "; ".join(f"step {step}: {wrong}" for step, wrong in bad.items()) or "there is none"
        raise ValueError(f"{folder / CHECKPOINTS_FOLDER}: no whole checkpoint ({found}): train the run first")
    with jax.set_mesh(mesh):
        like = abstract_arrays(mesh, lambda: make_state(run))
        state = read_whole_step(folder / CHECKPOINTS_FOLDER, step, like)
        params = state.evaluated
        params.head = nnx.Param(params.head[...][:, : run.model.vocab_size])
    model = dataclasses.replace(run.model, mask_column=False)  # the slice above leaves that column out
    return Model(folder, params, model, run.data.seq_len, mesh, run, step)


def _from_weights(weights: Weights, spec: ModelSpec, mesh: Mesh) -> Transformer:
    shapes = abstract_arrays(mesh, lambda: place(Transformer(spec, jax.random.key(0))))

    def put(entry: Any, shape: jax.ShapeDtypeStruct) -> Array:
        weight = weights[weight_name(entry)]
        assert weight.shape == shape.shape
        return jax.device_put(weight, shape.sharding)

    return jax.tree_util.tree_map_with_path(put, shapes)
