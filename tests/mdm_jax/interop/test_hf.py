"""Hugging Face folders: the same bits there and back, the row of the extra token, and folders that are refused."""

import dataclasses
import json

import numpy as np
import pytest
from command_line import one_line
from safetensors.numpy import load_file, save_file
from smdm_files import TRUNK, random_weights, write_random

from mdm_jax import load
from mdm_jax.interop.hf.__main__ import main
from mdm_jax.interop.hf.config import LLADA, LLAMA, START, write_config
from mdm_jax.interop.hf.folder import read_hf, write_hf
from mdm_jax.interop.hf.weights import LLADA as LLADA_NAMES
from mdm_jax.interop.hf.weights import LLAMA as LLAMA_NAMES
from mdm_jax.interop.hf.weights import hf_shapes, to_hf
from mdm_jax.interop.model_file import ModelFile
from mdm_jax.spec import NORM_EPS, ROPE_BASE, Attention, Family

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MODELS = {"llada": (Attention.BIDIRECTIONAL, True), "llama": (Attention.CAUSAL, True), "v": (Attention.CAUSAL, False)}
EACH = pytest.mark.parametrize(("attention", "has_start"), MODELS.values(), ids=MODELS)
V = TRUNK.vocab_size
GATE = "model.layers.1.mlp.gate_proj.weight"


def model_file(attention: Attention, has_start: bool = True) -> ModelFile:
    spec = dataclasses.replace(TRUNK, attention=attention)
    weights = random_weights(spec)
    if not has_start:
        weights["embed"][V] = 0
    return ModelFile(spec, 8, has_start, weights)


def llama(folder, has_start=True):
    """The folder of a random ARM."""
    write_hf(folder, model_file(Attention.CAUSAL, has_start))
    return folder


def edited(folder, **keys):
    """The folder, its config with these keys; a key with the value ... is removed."""
    config = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps({key: v for key, v in config.items() if v is not ...}))
    return folder


def test_the_trunk_has_the_constants_that_a_config_may_name():
    assert (NORM_EPS, ROPE_BASE) == (1e-5, 1e4)


@EACH
def test_a_folder_is_read_to_the_same_bits(tmp_path, attention, has_start):
    model = model_file(attention, has_start)
    write_hf(tmp_path / "a", model, eos_id=256)
    back = read_hf(tmp_path / "a")
    assert (back.spec, back.seq_len, back.has_start) == (model.spec, 8, has_start)
    assert back.weights.keys() == model.weights.keys()
    assert not [name for name, w in model.weights.items() if back.weights[name].tobytes() != w.tobytes()]
    write_hf(tmp_path / "b", back, eos_id=256)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@EACH
def test_a_folder_has_the_names_of_its_class(tmp_path, attention, has_start):
    write_hf(tmp_path / "a", model_file(attention, has_start))
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    held = load_file(tmp_path / "a" / "model.safetensors")
    rows = V + has_start
    assert {name: w.shape for name, w in held.items()} == hf_shapes(model_file(attention).spec, has_start)
    assert config["vocab_size"] == rows
    if attention is Attention.CAUSAL:
        assert held["model.embed_tokens.weight"].shape == held["lm_head.weight"].shape == (rows, 16)
        assert held["model.layers.1.mlp.down_proj.weight"].shape == (16, 24)
        assert (config["architectures"], config["num_key_value_heads"]) == (["LlamaForCausalLM"], 2)
        assert config["bos_token_id"] == (V if has_start else None)
        suppressed = json.loads((tmp_path / "a" / "generation_config.json").read_text()).get("suppress_tokens")
        assert suppressed == ([V] if has_start else None)
    else:
        assert held["model.transformer.wte.weight"].shape == held["model.transformer.ff_out.weight"].shape == (rows, 16)
        assert held["model.transformer.blocks.1.ff_out.weight"].shape == (16, 24)
        assert (config["architectures"], config["mask_token_id"]) == (["LLaDAModelLM"], V)
        assert config["embedding_size"] == V + 1


@pytest.mark.parametrize("names", [LLAMA_NAMES, LLADA_NAMES], ids=["llama", "llada"])
def test_each_projection_is_the_product_that_our_layer_computes(names):
    """A vector times our weight is the Hugging Face weight times the vector, in head-major order."""
    attention = Attention.CAUSAL if names is LLAMA_NAMES else Attention.BIDIRECTIONAL
    model = model_file(attention)
    theirs, ours = to_hf(model.weights, model.spec, True), model.weights
    x_D, o_HK = np.random.default_rng(1).normal(size=16), np.random.default_rng(2).normal(size=(2, 8))
    for end, (name, index) in names.parts.items():
        held = theirs[f"{names.layer.format(1)}{end}.weight"]
        if name == "qkv":
            np.testing.assert_allclose(held @ x_D, np.einsum("d,dhk->hk", x_D, ours[name][1][:, index]).ravel())
        elif name == "out":
            np.testing.assert_allclose(held @ o_HK.ravel(), np.einsum("hk,hkd->d", o_HK, ours[name][1]))
        elif held.ndim == 2:
            given = np.arange(held.shape[1])
            np.testing.assert_allclose(held @ given, given @ ours[name][1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 30.0])
def test_the_extra_token_never_wins_and_has_at_most_the_share_of_one_among_v_plus_1(scale):
    model = model_file(Attention.CAUSAL)
    weights = model.weights | {"head": model.weights["head"] * np.float32(scale)}
    h_BD = np.random.default_rng(3).normal(size=(500, 16))
    logits_BV = h_BD @ to_hf(weights, model.spec, True)["lm_head.weight"].astype(np.float64).T
    p_BV = np.exp(logits_BV - logits_BV.max(1, keepdims=True))
    p_BV /= p_BV.sum(1, keepdims=True)
    np.testing.assert_allclose(logits_BV[:, V], logits_BV[:, :V].mean(1), atol=1e-5 * scale)
    assert (p_BV.argmax(1) < V).all()
    assert p_BV[:, V].max() <= (1 + 1e-6) / (V + 1)


def test_an_opened_folder_gives_the_logits_and_the_tokenizer_of_the_model(tmp_path):
    tokens_BL = np.random.default_rng(0).integers(0, V + 1, (2, 8))
    for name, attention in (("mdm", Attention.BIDIRECTIONAL), ("arm", Attention.CAUSAL)):
        model = load(write_random(tmp_path / f"{name}.safetensors", attention))
        model.export_hf(tmp_path / name)
        opened = load(tmp_path / name)
        assert (opened.family, opened.spec, opened.has_start) == (model.family, model.spec, True)
        np.testing.assert_array_equal(opened.logits(tokens_BL), model.logits(tokens_BL))
        assert opened.tokenizer.hash == model.tokenizer.hash


def test_released_weights_survive_a_folder(reference_data, tmp_path):
    for name in ("ar", "mdm"):
        model = load(reference_data / "smdm_golden" / f"{name}.safetensors")
        model.export_hf(tmp_path / name, tokenizer=False)
        with np.load(reference_data / "smdm_golden" / f"{name}.npz") as golden:
            np.testing.assert_allclose(load(tmp_path / name).logits(golden["inputs"]), golden["logits"], atol=1e-4)


def test_several_files_with_an_index_are_one_model(tmp_path):
    whole = read_hf(llama(tmp_path / "a"))
    held = load_file(tmp_path / "a" / "model.safetensors")
    names = sorted(held)
    files = {"x-1.safetensors": names[:5], "x-2.safetensors": names[5:]}
    for file, part in files.items():
        save_file({name: held[name] for name in part}, tmp_path / "a" / file, {"format": "pt"})
    (tmp_path / "a" / "model.safetensors").unlink()
    place = {name: file for file, part in files.items() for name in part}
    (tmp_path / "a" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    parts = read_hf(tmp_path / "a")
    assert not [name for name, w in whole.weights.items() if parts.weights[name].tobytes() != w.tobytes()]
    (tmp_path / "a" / "x-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"x-2\.safetensors: no such file"):
        read_hf(tmp_path / "a")


BAD_INDICES = [
    ("{", "index.json: no JSON"),
    ("{}", "index.json: weight_map = 'NoneType': must be an object"),
    ('{"weight_map": {}}', "weight_map = 'dict': must be an object: the file of each tensor"),
    ('{"weight_map": {"a": 1}}', "weight_map = 'dict'"),
    (
        '{"weight_map": {"a": "../b.safetensors"}}',
        "index.json: file = '../b.safetensors': must be a .safetensors file in",
    ),
    ('{"weight_map": {"a": "/etc/b.safetensors"}}', "index.json: file = '/etc/b.safetensors'"),
    ('{"weight_map": {"a": "..\\\\b.safetensors"}}', r"index.json: file = '\.\.\\\\b.safetensors'"),
    ('{"weight_map": {"a": "pytorch_model-1.bin"}}', r"file = 'pytorch_model-1.bin': .*pickles are never opened"),
    (
        json.dumps({"weight_map": {f"{i}": f"{i}.safetensors" for i in range(1025)}}),
        "files = 1025: must be at most 1024",
    ),
]


@pytest.mark.parametrize(("index", "said"), BAD_INDICES)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path, index, said):
    (llama(tmp_path / "a") / "model.safetensors").rename(tmp_path / "b.safetensors")
    (tmp_path / "a" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=said):
        read_hf(tmp_path / "a")


def test_pickled_weights_are_refused_by_name(tmp_path):
    weights = llama(tmp_path / "a") / "model.safetensors"
    weights.rename(tmp_path / "a" / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"a: pytorch_model\.bin: pickled weights are never opened: needs model\.safet"
    ):
        load(tmp_path / "a")
    (tmp_path / "a" / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"a: no weights: needs model\.safetensors or model\.safetensors\.index\.json"):
        load(tmp_path / "a")
    weights.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=r"model\.safetensors: no safetensors file.*pickled weights are never opened"):
        load(tmp_path / "a")


CONFIGS = [
    ({"architectures": ["MistralForCausalLM"]}, "architectures = .*must be .one of LlamaForCausalLM, LLaDAModelLM"),
    ({"architectures": []}, r"architectures = \[\]"),
    ({"architectures": [{}]}, "architectures"),
    ({"num_key_value_heads": 1}, "num_key_value_heads = 1: must be 2, one for each head"),
    ({"head_dim": 16}, "head_dim = 16: must be 8"),
    ({"rms_norm_eps": ...}, "rms_norm_eps = 1e-06: must be 1e-05: the trunk has no other"),
    ({"rope_theta": 500000.0}, "rope_theta = 500000.0: must be 10000.0"),
    ({"rope_theta": ..., "rope_parameters": {"rope_theta": 5e5}}, "rope_theta = 500000.0"),
    (
        {"rope_parameters": {"rope_type": "llama3", "factor": 8}},
        "rope_parameters.rope_type = 'llama3': must be 'default'",
    ),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.rope_type = 'linear'"),
    ({"rope_scaling": 2.0}, "rope_scaling = 2.0: must be an object"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu': must be 'silu'"),
    ({"attention_bias": True}, "attention_bias = True: must be False"),
    ({"mlp_bias": True}, "mlp_bias = True"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings = True"),
    ({"quantization_config": {"bits": 4}}, "quantization_config = .*weights must be plain numbers"),
    ({"hidden_size": ...}, "hidden_size = None: must be an integer from 1"),
    ({"hidden_size": 1 << 60}, "hidden_size = 1152921504606846976"),
    ({"num_attention_heads": True}, "num_attention_heads = True: must be an integer"),
    (
        {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": ...},
        "model.d_model = 16: must be a multiple of",
    ),
    ({START: 256}, "mdm_jax_start_token_id = 256: must be 257, the last row"),
    ({"vocab_size": 300}, "mdm_jax_start_token_id = 257: must be 299"),
    ({"num_hidden_layers": 3}, r"model.layers.2.input_layernorm.weight: shape = 'absent': must be \[16\]"),
    ({"intermediate_size": 32}, r"mlp.down_proj.weight: shape = \[16, 24\]: must be \[16, 32\]"),
]


@pytest.mark.parametrize(("keys", "said"), CONFIGS)
def test_a_llama_that_our_trunk_does_not_have_is_refused_in_one_line(tmp_path, keys, said):
    edited(llama(tmp_path / "a"), **keys)
    with pytest.raises(ValueError, match=said) as caught:
        read_hf(tmp_path / "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keys", [{"rope_theta": ..., "rope_parameters": {"rope_theta": 10000, "rope_type": "default"}},
                                  {"num_key_value_heads": ...}, {"num_key_value_heads": None, "rope_theta": 10000},
                                  {"head_dim": 8, "rope_scaling": None}])  # fmt: skip
def test_other_ways_to_say_the_same_are_read(tmp_path, keys):
    assert read_hf(edited(llama(tmp_path / "a"), **keys)).spec == model_file(Attention.CAUSAL).spec


def test_a_llama_of_other_origin_has_no_start_token(tmp_path):
    folder = edited(llama(tmp_path / "a"), **{START: ...})
    model = read_hf(folder)
    assert (model.spec.vocab_size, model.has_start) == (V + 1, False)
    assert not model.weights["embed"][V + 1].any()


HOSTILE_CONFIGS = [
    (b"", "config.json: no JSON"),
    (b"[" * 100_000, "config.json: no JSON"),
    (b'{"architectures": "\xff"}', "config.json: no JSON"),
    (b'{"vocab_size": ' + b"9" * 5000 + b"}", "config.json: no JSON"),
    (b"[]", "config.json = 'list': must be a JSON object"),
    (b" " * ((1 << 20) + 1), "config.json: size = 1048577: must be at most 1 MiB"),
    (
        b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": NaN}',
        "num_hidden_layers = nan: must be an integer",
    ),
]


@pytest.mark.parametrize(("content", "said"), HOSTILE_CONFIGS, ids=range(len(HOSTILE_CONFIGS)))
def test_a_hostile_config_is_refused(tmp_path, content, said):
    (llama(tmp_path / "a") / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_hf(tmp_path / "a")


LLADA_CONFIGS = [
    ({"mask_token_id": 126336}, "mask_token_id = 126336: must be 257, the last row of the table"),
    ({"mask_token_id": ...}, "mask_token_id = None: must be 257"),
    ({"embedding_size": 384}, "embedding_size = 384: must be 258, as vocab_size"),
    ({"embedding_size": ...}, "embedding_size = 'absent': must be 258"),
    ({"rope_theta": 500000.0}, "rope_theta = 500000.0"),
    ({"weight_tying": ...}, "weight_tying = True: must be False"),
    ({"block_type": "sequential"}, "block_type = 'sequential': must be 'llama'"),
    ({"activation_type": ...}, "activation_type = 'swiglu': must be 'silu'"),
    ({"multi_query_attention": True}, "multi_query_attention = True"),
    ({"n_kv_heads": 1}, "n_kv_heads = 1: must be 2"),
]


@pytest.mark.parametrize(("keys", "said"), LLADA_CONFIGS)
def test_a_llada_that_our_trunk_does_not_have_is_refused(tmp_path, keys, said):
    write_hf(tmp_path / "a", model_file(Attention.BIDIRECTIONAL))
    with pytest.raises(ValueError, match=said):
        read_hf(edited(tmp_path / "a", **keys))


DAMAGE = [
    (lambda held: {name: w for name, w in held.items() if name != GATE}, "gate_proj.weight: shape = 'absent'"),
    (lambda held: held | {GATE: held[GATE].T.copy()}, r"gate_proj.weight: shape = \[16, 24\]: must be \[24, 16\]"),
    (lambda held: held | {"model.layers.0.self_attn.q_proj.bias": np.ones(16, np.float32)}, "bias: shape = .*absent"),
    (lambda held: held | {GATE: held[GATE] * np.float32("nan")}, "gate_proj.weight = 'not finite'"),
    (lambda held: held | {GATE: held[GATE].astype(np.int64)}, "gate_proj.weight: dtype = 'I64'"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, damage, said):
    held = load_file(llama(tmp_path / "a") / "model.safetensors")
    save_file(damage(held), tmp_path / "a" / "model.safetensors")
    with pytest.raises(ValueError, match=said):
        read_hf(tmp_path / "a")


def test_the_keys_of_the_two_classes_are_written_with_our_values():
    for layout in (LLAMA, LLADA):
        spec = dataclasses.replace(TRUNK, attention=layout.attention)
        config = write_config(spec, 8, True, None)
        assert {key: config[key] for key in layout.fixed} == {key: ours for key, (ours, _) in layout.fixed.items()}


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path):
    (llama(tmp_path / "a") / "note").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match="a = 'not empty': must be absent, or an empty folder"):
        llama(tmp_path / "a")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match="note = 'not empty'"):
        llama(tmp_path / "a" / "note")


def test_an_interrupted_export_is_no_folder_of_a_model(tmp_path):
    (llama(tmp_path / "a") / "config.json").unlink()
    with pytest.raises(
        ValueError, match=r"no run's folder: it has no spec\.json \(and a Hugging Face folder has config"
    ):
        load(tmp_path / "a")


def test_the_command_exports_and_imports_and_says_what_is_wrong_in_one_line(tmp_path, capsys):
    source = write_random(tmp_path / "model", Attention.BIDIRECTIONAL)
    folder, file = str(tmp_path / "folder"), str(tmp_path / "again")
    assert main(["export", str(source), folder]) == 0
    assert f"{folder}: <MDM: 2 layers" in capsys.readouterr().out
    assert main(["import", folder, file]) == 0
    assert source.read_bytes() == (tmp_path / "again").read_bytes()
    capsys.readouterr()
    one_line(main, ["export", str(source), folder], capsys)
    assert main(["export", file, str(tmp_path / "bare"), "--no-tokenizer"]) == 0
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == ["config.json", "model.safetensors"]
    assert load(tmp_path / "bare").family is Family.MDM
