"""SMDM's files: released logits, every published size, the same bits there and back, and files that are refused."""

import dataclasses
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from command_line import one_line
from safetensors.numpy import load_file, save_file
from smdm_files import TRUNK, random_weights, write_random

from isoflop.ladder import SMDM
from mdm_jax import load
from mdm_jax.interop.smdm.__main__ import main
from mdm_jax.interop.smdm.weights import EMBED, FIXED, HEAD, START, model_of_shapes, read_smdm, smdm_shapes, write_smdm
from mdm_jax.spec import Attention, Family, ModelSpec

BOTH = pytest.mark.parametrize("attention", list(Attention))
GATE = "transformer.h.1.mlp.swiglu.w1.weight"


@pytest.mark.parametrize(("name", "family"), [("mdm", Family.MDM), ("ar", Family.ARM)])
def test_released_weights_give_the_released_logits(reference_data, name, family):
    model = load(reference_data / "smdm_golden" / f"{name}.safetensors")
    assert model.family is family
    with np.load(reference_data / "smdm_golden" / f"{name}.npz") as golden:
        inputs_BL, logits_BLV = golden["inputs"], golden["logits"]
    np.testing.assert_allclose(model.logits(inputs_BL), logits_BLV, atol=1e-4)


def test_guidance_gives_the_released_guided_logits(reference_data):
    model = load(reference_data / "smdm_golden" / "mdm.safetensors")
    with np.load(reference_data / "smdm_golden" / "mdm.npz") as golden:
        inputs_BL, prompt, scale = golden["inputs"], golden["cfg_prompt_len"], golden["cfg_scale"]
        guided_BLV = golden["cfg_logits"]
    prompt_mask_BL = np.broadcast_to(np.arange(inputs_BL.shape[1]) < prompt, inputs_BL.shape)
    np.testing.assert_allclose(model.logits(inputs_BL, float(scale), prompt_mask_BL), guided_BLV, atol=1e-4)


def test_the_trunk_has_the_constants_that_a_config_may_name():
    assert FIXED == {"norm_eps": 1e-5, "rope_base": 10000}


@BOTH
@pytest.mark.parametrize("name", SMDM)
def test_every_published_size_is_known_by_its_shapes(name, attention):
    spec = SMDM[name].model(ModelSpec(vocab_size=32000, attention=attention))
    assert model_of_shapes(f"{name}.safetensors", smdm_shapes(spec, has_start=False), {}) == (spec, 2048)


@BOTH
def test_weights_that_are_written_are_read_to_the_same_bits(tmp_path, attention):
    spec = dataclasses.replace(TRUNK, attention=attention)
    weights = random_weights(spec)
    write_smdm(tmp_path / "a", weights, spec, 8, has_start=True)
    file = read_smdm(tmp_path / "a")
    assert (file.spec, file.seq_len, file.has_start) == (spec, 8, True)
    assert {name: w.tobytes() for name, w in file.weights.items()} == {name: w.tobytes() for name, w in weights.items()}
    load(tmp_path / "a").export(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_arm_without_a_start_token_stays_one(tmp_path):
    path = write_random(tmp_path / "arm", Attention.CAUSAL, has_start=False)
    assert START not in load_file(path)
    assert not read_smdm(path).has_start
    load(path).export(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_read_as_they_are(tmp_path, dtype):
    held = load_file(write_random(tmp_path / "whole", Attention.BIDIRECTIONAL))
    halves = {name: w.astype(dtype) for name, w in held.items()}
    save_file(halves, tmp_path / "half")
    (tmp_path / "config.json").write_text(json.dumps({**SHAPE, "seq_len": 8}))
    np.testing.assert_array_equal(read_smdm(tmp_path / "half").weights["embed"], halves[EMBED].astype(np.float32))


SHAPE = {"n_layer": 2, "d_model": 16, "n_head": 2, "ffn": 24, "vocab": 257}
CONFIGS = [
    (None, "put a config.json with n_head and these beside it"),
    ("{", "config.json: no JSON"),
    ("[]", "config.json = 'list': must be a JSON object"),
    (json.dumps({**SHAPE, "n_head": "2"}), "config.json: n_head = '2'"),
    (json.dumps({**SHAPE, "n_head": 3}), "model.d_model = 16: must be a multiple of 2"),
    (json.dumps({**SHAPE, "rope_base": 500000}), "config.json: rope_base = 500000: must be 10000"),
    (json.dumps({**SHAPE, "ffn": 32}), r"h.0.mlp.swiglu.w1.weight: shape = \[24, 16\]: must be \[32, 16\]"),
    (json.dumps({**SHAPE, "n_layer": 3}), "h.2.attn.attn.weight: shape = 'absent'"),
]


@pytest.mark.parametrize(("config", "said"), CONFIGS)
def test_a_config_that_does_not_fit_is_named(tmp_path, config, said):
    save_file(load_file(write_random(tmp_path / "whole", Attention.BIDIRECTIONAL)), tmp_path / "released")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=said):
        read_smdm(tmp_path / "released")


def without(tensors, name):
    return {key: w for key, w in tensors.items() if key != name}


DAMAGE = [
    (lambda held: without(held, HEAD), "lm_head.weight = 'absent': must be a matrix"),
    (lambda held: without(held, GATE), "h.1.mlp.swiglu.w1.weight: shape = 'absent'"),
    (lambda held: held | {"bias": np.ones(2, np.float32)}, r"bias: shape = \[2\]: must be absent"),
    (lambda held: held | {START: np.ones(16, np.float32)}, r"start.weight: shape = \[16\]: must be absent"),
    (lambda held: held | {EMBED: held[EMBED][:9]}, r"wte.weight: shape = \[9, 16\]: must be \[258, 16\]"),
    (lambda held: held | {GATE: held[GATE].T.copy()}, r"w1.weight: shape = \[16, 24\]: must be \[24, 16\]"),
    (lambda held: held | {GATE: held[GATE].astype(np.float64)}, "w1.weight: dtype = 'F64': must be one of BF16, F16"),
    (lambda held: held | {GATE: held[GATE] * np.float32("nan")}, "w1.weight = 'not finite'"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, damage, said):
    held = load_file(write_random(tmp_path / "whole", Attention.BIDIRECTIONAL))
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    save_file(damage(held), tmp_path / "damaged")
    with pytest.raises(ValueError, match=said):
        read_smdm(tmp_path / "damaged")


def claiming(shape):
    """A header that claims a tensor of this shape, and eight bytes of data."""
    header = json.dumps({HEAD: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


NO_FILES = {
    "empty": b"",
    "pickle": b"\x80\x04\x95" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "long header": (1 << 40).to_bytes(8, "little") + b"{}",
    "large tensor": claiming([1 << 20, 1 << 20]),
}


@pytest.mark.parametrize("content", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_safetensors_file_is_refused_before_it_is_read(tmp_path, content):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model: no safetensors file, or cut short .*pickled weights are never opened"
    ):
        load(tmp_path / "model")


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = write_random(tmp_path / "model", Attention.CAUSAL)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no safetensors file, or cut short"):
        load(path)


def test_the_command_imports_a_file_and_says_what_is_wrong_in_one_line(tmp_path, capsys):
    released = tmp_path / "released"
    save_file(load_file(write_random(tmp_path / "whole", Attention.BIDIRECTIONAL)), released)
    one_line(main, ["import", str(released), str(tmp_path / "out")], capsys)
    (tmp_path / "config.json").write_text(json.dumps({**SHAPE, "seq_len": 8}))
    assert main(["import", str(released), str(tmp_path / "out")]) == 0
    assert "MDM: 2 layers, d_model 16" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert load(moved).spec == load(released).spec
