"""Tokenizer files of a Hugging Face folder: bytes exactly, the special tokens, and a tokenizer that does not match."""

import io
import json

import json_tokenizers
import numpy as np
import pytest
import sentencepiece
import tokenizers
from small_corpus import texts
from smdm_files import random_weights, write_random

from mdm_jax import load
from mdm_jax.data.tokenizer import ByteTokenizer, SentencePieceTokenizer, train_sentencepiece
from mdm_jax.data.tokenizer_json import JsonTokenizer
from mdm_jax.files.storage import as_path
from mdm_jax.interop.hf.folder import write_hf
from mdm_jax.interop.hf.tokenizer import holds_bytes, tokenizer_files
from mdm_jax.interop.model_file import ModelFile
from mdm_jax.spec import Attention, ModelSpec

BYTES = ByteTokenizer()
SAMPLES = [
    "",
    "a",
    "größe λ 数 😀\t\x00 x",
    "  two  spaces \n",
    "<|endoftext|> <|start|> <|mask|>",
    "é\u0301\ufffd\u2581",
]


def of(tokenizer, causal=True, has_extra=True, vocab_size=None):
    """The files of a tokenizer, for a model of this family and as many ids as the tokenizer."""
    attention = Attention.CAUSAL if causal else Attention.BIDIRECTIONAL
    spec = ModelSpec(1, 16, 2, 24, vocab_size or tokenizer.vocab_size, attention)
    return tokenizer_files(tokenizer, spec, has_extra, 16)


def of_bytes(causal=True, has_extra=True):
    return of(BYTES, causal, has_extra)


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    return train_sentencepiece(texts(60), 320)


def config_of(files):
    return json.loads(files["tokenizer_config.json"])


def test_the_json_of_bytes_gives_our_ids_and_decodes_to_the_text():
    tokenizer = tokenizers.Tokenizer.from_str(of_bytes()["tokenizer.json"].decode())
    tokenizer.encode_special_tokens = True  # transformers sets it for `split_special_tokens`
    every_character = "".join(map(chr, range(0x800)))
    for text in [*SAMPLES, every_character]:
        ids = tokenizer.encode(text).ids
        assert ids == [257, *BYTES.encode(text)]
        assert tokenizer.decode(ids) == text
    assert [tokenizer.token_to_id(name) for name in ("<|endoftext|>", "<|start|>")] == [256, 257]
    assert tokenizer.get_vocab_size() == 258
    alone = tokenizers.Tokenizer.from_str(of_bytes(causal=False)["tokenizer.json"].decode())
    assert (alone.encode("a").ids, alone.token_to_id("<|mask|>")) == ([97], 257)


def test_the_byte_of_each_id_is_the_id():
    tree = json.loads(of_bytes()["tokenizer.json"])
    decode = tokenizers.decoders.ByteLevel().decode
    ascii_or_not = {name: i for name, i in tree["model"]["vocab"].items() if i < 256}
    assert sorted(ascii_or_not.values()) == list(range(256))
    assert [decode([name]) for name, i in ascii_or_not.items() if i < 128] == [chr(i) for i in range(128)]
    name_of = {i: name for name, i in ascii_or_not.items()}
    assert decode([name_of[byte] for byte in "ö".encode()]) == "ö"


def test_the_config_names_the_special_tokens():
    arm, mdm, plain = config_of(of_bytes()), config_of(of_bytes(causal=False)), config_of(of_bytes(has_extra=False))
    assert (arm["bos_token"], arm["eos_token"], arm["model_max_length"]) == ("<|start|>", "<|endoftext|>", 16)
    assert (mdm["mask_token"], "bos_token" in mdm) == ("<|mask|>", False)
    assert "bos_token" not in plain
    assert all(config["split_special_tokens"] for config in (arm, mdm, plain))


def test_a_sentencepiece_model_is_copied_and_its_own_end_is_named(sentencepiece_model):
    own = SentencePieceTokenizer(sentencepiece_model)
    files = of(own)
    assert files["tokenizer.model"] == sentencepiece_model
    config = config_of(files)
    assert (config["eos_token"], config["unk_token"], config["add_prefix_space"]) == ("</s>", "<unk>", False)
    assert {i: token["content"] for i, token in config["added_tokens_decoder"].items()} == {"320": "<|start|>"}
    assert config["add_bos_token"]
    without = config_of(of(own, has_extra=False))
    assert (without["bos_token"], without["add_bos_token"], without["added_tokens_decoder"]) == (None, False, {})


def test_a_sentencepiece_model_without_an_end_gets_one():
    model = io.BytesIO()
    options = {"vocab_size": 60, "model_type": "bpe", "eos_id": -1, "bos_id": -1, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts(60)), model_writer=model, **options)
    own = SentencePieceTokenizer(model.getvalue())
    config = config_of(of(own, causal=False))
    assert (own.eos_id, own.vocab_size) == (60, 61)
    assert (config["eos_token"], config["add_prefix_space"]) == ("<|endoftext|>", True)
    assert {i: token["content"] for i, token in config["added_tokens_decoder"].items()} == {
        "60": "<|endoftext|>",
        "61": "<|mask|>",
    }


@pytest.mark.parametrize("kind", [json_tokenizers.byte_level, json_tokenizers.word_piece, json_tokenizers.llama])
def test_a_json_gives_the_ids_of_training_with_the_start_token_before_them(kind):
    """WordPiece's file cuts and pads texts, and two of the kinds put other tokens around them."""
    own = JsonTokenizer(kind(texts(60)).encode())
    for causal in (True, False):
        files = of(own, causal)
        exported = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
        exported.encode_special_tokens = True
        for text in ["", *texts(5), "a </s> b"]:
            assert exported.encode(text).ids == [own.vocab_size] * causal + own.encode(text).tolist()
        assert config_of(files)["eos_token"] == exported.id_to_token(own.eos_id)


def test_the_json_of_a_model_of_other_origin_is_copied_as_it_is():
    own = JsonTokenizer(json_tokenizers.llama(texts(60)).encode())
    exported = of(own, has_extra=False)["tokenizer.json"]
    assert json.loads(exported) == json.loads(own.model)


def test_a_json_with_fewer_ids_than_the_model_leaves_the_extra_token_without_a_name():
    given = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[]))
    own = JsonTokenizer(given.to_str().encode())
    assert (own.eos_id, own.vocab_size) == (1, 2)
    config = config_of(of(own, vocab_size=2))
    assert (config["bos_token"], config["added_tokens_decoder"].keys()) == ("<|start|>", {"1", "2"})
    padded = of(own, vocab_size=8)
    assert ("bos_token" in config_of(padded), config_of(padded)["added_tokens_decoder"].keys()) == (False, {"1"})
    assert tokenizers.Tokenizer.from_str(padded["tokenizer.json"].decode()).encode("a").ids == [8, 0]


def test_a_special_token_never_has_the_name_of_another_token():
    pieces = {"a": 0, "<|endoftext|>": 1, "<|start|>": 2, "<|start_|>": 3}
    given = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=pieces, merges=[]))
    files = of(JsonTokenizer(given.to_str().encode()))
    assert (config_of(files)["eos_token"], config_of(files)["bos_token"]) == ("<|endoftext_|>", "<|start__|>")
    assert {i: token["content"] for i, token in config_of(files)["added_tokens_decoder"].items()} == {
        "4": "<|endoftext_|>",
        "5": "<|start__|>",
    }
    assert tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode()).encode("a").tokens == ["<|start__|>", "a"]


def test_a_folder_is_opened_with_the_tokenizer_in_it_or_refused(tmp_path, sentencepiece_model):
    source = write_random(tmp_path / "model", Attention.CAUSAL)
    load(source).export_hf(tmp_path / "a")
    model = load(tmp_path / "a")
    np.testing.assert_array_equal(model.tokenizer.encode("größe"), BYTES.encode("größe"))
    (tmp_path / "a" / "tokenizer.model").write_bytes(sentencepiece_model)
    with pytest.raises(ValueError, match=r"tokenizer\.model: vocab_size = 320: must be 257, the vocabulary of a"):
        _ = load(tmp_path / "a").tokenizer
    (tmp_path / "a" / "tokenizer.model").unlink()
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer\.json, or cut short"):
        _ = load(tmp_path / "a").tokenizer
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer\.json, or cut short"):
        load(tmp_path / "a").export_hf(tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("attention", list(Attention))
def test_the_tokenizer_of_another_vocabulary_travels_with_the_folder(tmp_path, sentencepiece_model, attention, name):
    spec = ModelSpec(1, 16, 2, 24, 320, attention)
    file = ModelFile(spec, 16, True, random_weights(spec))
    content = sentencepiece_model if name == "tokenizer.model" else json_tokenizers.byte_level(texts(60)).encode()
    write_hf(tmp_path / "a", file, tokenizer={name: content})
    model = load(tmp_path / "a")
    model.export_hf(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["eos_token_id"] == model.tokenizer.eos_id
    again, text = load(tmp_path / "b").tokenizer, "größe of noise"
    assert (again.eos_id, again.vocab_size) == (model.tokenizer.eos_id, 320)
    np.testing.assert_array_equal(again.encode(text), model.tokenizer.encode(text))
    assert again.decode(again.encode(text)) == text


def test_what_the_export_writes_for_bytes_is_known_again(tmp_path):
    folder = as_path(tmp_path)
    assert holds_bytes(folder)
    for causal, has_extra in ((True, True), (False, True), (True, False)):
        (tmp_path / "tokenizer.json").write_bytes(of_bytes(causal, has_extra)["tokenizer.json"])
        assert holds_bytes(folder)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert not holds_bytes(folder)
