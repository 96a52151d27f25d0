"""A Hugging Face folder: `config.json`, `model.safetensors` or several files with an index, and tokenizer files.

Writing: `config.json` comes last, so a folder that an interrupted export left behind is not taken for a whole one.
Reading: pickled weights (`pytorch_model.bin`) are never opened, and an index names files inside the folder only.
"""

import json
import os
from collections.abc import Mapping

from safetensors.numpy import save

from mdm_jax.files.storage import Kind, Path, as_path, entries, inside, is_file, kind, write_atomic
from mdm_jax.interop.config_json import MOST_INDEX_BYTES, read_object
from mdm_jax.interop.hf.config import read_config, write_config
from mdm_jax.interop.hf.weights import from_hf, hf_shapes, to_hf
from mdm_jax.interop.model_file import ModelFile
from mdm_jax.interop.tensors import check_shapes, read_tensors
from mdm_jax.spec import Attention
from mdm_jax.spec.validation import require

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
MOST_FILES = 1024


def is_hf_folder(folder: Path) -> bool:
    """Whether the folder has a `config.json`."""
    return is_file(folder / CONFIG_FILE)


def write_hf(
    folder: str | os.PathLike[str],
    model: ModelFile,
    eos_id: int | None = None,
    tokenizer: Mapping[str, bytes] | None = None,
) -> None:
    """Writes the model as a folder. Reading it gives the same bits.

    Args:
        folder: path of the folder, which must be absent or empty.
        model: the model; the class follows from its attention.
        eos_id: id of EOS, at which generation ends; None if it is unknown.
        tokenizer: content of the tokenizer files, by name; none by default.

    Raises:
        ValueError: there is something at the path already.
        OSError: no room or no access.
    """
    path, spec = as_path(folder), model.spec
    there = kind(path, follow=True)
    empty = there is Kind.ABSENT or (there is Kind.FOLDER and not entries(path))
    require(empty, str(path), "not empty", "absent, or an empty folder: name another, or remove it")
    write_atomic(path / WEIGHTS_FILE, save(to_hf(model.weights, spec, model.has_start), {"format": "pt"}))
    for name, content in (tokenizer or {}).items():
        write_atomic(path / name, content)
    config = write_config(spec, model.seq_len, model.has_start, eos_id)
    if spec.attention is Attention.CAUSAL:
        ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        never = {"suppress_tokens": [spec.vocab_size]} if model.has_start else {}
        write_atomic(path / GENERATION_FILE, json.dumps(ids | never, indent=2) + "\n")
    write_atomic(path / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def read_hf(folder: str | os.PathLike[str]) -> ModelFile:
    """The model of a folder. Its config and the shape of every tensor are checked before a weight is read.

    Raises:
        ValueError: `config.json` is absent or describes a model that our trunk does not have; the weights are absent,
            pickled, cut short or outside the folder; or a tensor (named) is absent, unknown, of another shape or type,
            or not finite.
        OSError: a file cannot be read now.
    """
    path = as_path(folder)
    file = path / CONFIG_FILE
    require(is_file(file), str(file), "absent", "a Hugging Face config")
    spec, seq_len, has_extra = read_config(str(file), read_object(file))
    wanted = hf_shapes(spec, has_extra)
    _, tensors = read_tensors(_weight_files(path), lambda shapes, _: check_shapes(path, shapes, wanted))
    return ModelFile(spec, seq_len, has_extra, from_hf(tensors, spec, has_extra))


def _weight_files(folder: Path) -> list[Path]:
    """The files of weights: the only one, or those that the index names."""
    if is_file(folder / WEIGHTS_FILE):
        return [folder / WEIGHTS_FILE]
    index = folder / INDEX_FILE
    if not is_file(index):
        pickled = sorted(entry.name for entry in entries(folder) if entry.name.endswith(PICKLED))
        found = f"{pickled[0]}: pickled weights are never opened" if pickled else "no weights"
        remedy = "save the model again with transformers (save_pretrained)"
        raise ValueError(f"{folder}: {found}: needs {WEIGHTS_FILE} or {INDEX_FILE}: {remedy}")
    place = read_object(index, MOST_INDEX_BYTES).get("weight_map")
    whole = isinstance(place, dict) and bool(place) and all(isinstance(name, str) for name in place.values())
    require(whole, f"{index}: weight_map", type(place).__name__, "an object: the file of each tensor")
    assert isinstance(place, dict)
    names = sorted(set(place.values()))
    require(len(names) <= MOST_FILES, f"{index}: files", len(names), f"at most {MOST_FILES}")
    for name in names:
        here = name.endswith(".safetensors") and "/" not in name and "\\" not in name
        require(here, f"{index}: file", name, "a .safetensors file in the same folder (pickles are never opened)")
    return [inside(folder, name) for name in names]
