"""A `tokenizer.json` gives ids below its vocabulary, ends documents with an id that is no text, and is checked."""

import dataclasses
import json

import numpy as np
import pytest
from json_tokenizers import byte_level, changed, llama, word_piece
from small_corpus import data_spec, flags, prepared, texts
from smdm_files import TRUNK, random_weights

from mdm_jax import load
from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.prepare import main
from mdm_jax.data.tokenizer import load_tokenizer, make_tokenizer, open_tokenizer
from mdm_jax.data.tokenizer_json import MOST_JSON_BYTES, JsonTokenizer
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, TokenizerKind, TokenizerSpec

FILES = {"gpt2": byte_level(texts(300)), "bert": word_piece(texts(300)), "llama": llama(texts(300))}
END = {"gpt2": "<|endoftext|>", "bert": "[SEP]", "llama": "</s>"}
AWKWARD = [
    "",
    " ",
    "plain words",
    "  indented\n\tand\ttabbed\n\n\n   x  ",
    "größe 漢字 😀 \u0301 \x00 \ufeff \u2028",
    "</s><s><unk><0x41> <|endoftext|> [SEP] [CLS]",
    "½ ﬁ Å K",
]


@pytest.fixture(params=FILES)
def kind(request) -> str:
    return request.param


@pytest.fixture
def tokenizer(kind) -> JsonTokenizer:
    return JsonTokenizer(FILES[kind].encode())


def test_ids_lie_below_the_vocabulary_and_no_text_gives_eos(kind, tokenizer):
    names = json.loads(FILES[kind])["added_tokens"]
    assert tokenizer.eos_id == next(token["id"] for token in names if token["content"] == END[kind])
    special = {token["id"] for token in names if token["content"] not in ("<unk>", "[UNK]")}
    for text in AWKWARD + texts(40):
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert not special & set(ids.tolist())
        assert np.all((ids >= 0) & (ids < tokenizer.vocab_size))


def test_the_largest_id_of_text_passes_over_special_tokens_but_not_over_the_unknown():
    tree = json.loads(FILES["bert"])
    words = len(tree["model"]["vocab"])
    for name, largest in (("[MASK]", words - 1), ("[UNK]", words)):
        vocab = {token: number for token, number in tree["model"]["vocab"].items() if token != name}
        moved = [token for token in tree["added_tokens"] if token["content"] != name] + [
            next(token for token in tree["added_tokens"] if token["content"] == name) | {"id": words}
        ]
        made = JsonTokenizer(changed(FILES["bert"], model__vocab=vocab | {name: words}, added_tokens=moved).encode())
        assert (made.largest_text_id, made.vocab_size) == (largest, words + 1)


def test_a_batch_is_its_texts_with_eos(tokenizer):
    given = AWKWARD + texts(20)
    ids, counts = tokenizer.encode_batch(given)
    expected = [np.append(tokenizer.encode(text), tokenizer.eos_id) for text in given]
    np.testing.assert_array_equal(ids, np.concatenate(expected))
    assert counts.tolist() == [len(part) for part in expected]
    assert ids.dtype == np.int32
    assert tokenizer.encode_batch([])[0].shape == (0,)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_text_comes_back_and_its_bytes_are_counted(tokenizer):
    assert tokenizer.keeps_text
    given = [text for text in AWKWARD if "<unk>" not in text] + texts(40)
    ids, counts = tokenizer.encode_batch(given)
    for text, part in zip(given, np.split(ids, np.cumsum(counts)[:-1]), strict=True):
        assert tokenizer.decode(part) == text
    assert tokenizer.text_bytes(ids) == sum(len(text.encode()) for text in given)
    assert tokenizer.text_bytes(ids[:0]) == tokenizer.text_bytes(np.array([tokenizer.eos_id])) == 0
    cut = tokenizer.encode("a😀")  # four ids of one byte each end the text
    assert [tokenizer.text_bytes(cut[: len(cut) - n]) for n in range(4)] == [5, 4, 3, 2]


def test_a_file_that_changes_texts_does_not_count_their_bytes():
    """Qwen's file composes accents, and RoBERTa's puts a blank before a text."""
    whole = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    for changes in (
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": whole | {"add_prefix_space": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, whole]}},
    ):
        assert not JsonTokenizer(changed(FILES["gpt2"], **changes).encode()).keeps_text
    assert JsonTokenizer(changed(FILES["gpt2"], pre_tokenizer=whole).encode()).keeps_text


def test_bert_forgets_case_and_spaces_and_is_not_cut_or_padded(tmp_path):
    """Its file asks for 8 ids a text. Bits per byte of a run then take the bytes that the preparation counted."""
    tokenizer = JsonTokenizer(FILES["bert"].encode())
    assert not tokenizer.keeps_text
    assert tokenizer.decode(tokenizer.encode("The  MODEL\nof noise")) == "the model of noise"
    assert len(tokenizer.encode("the model of noise " * 9)) == 36
    assert len(tokenizer.encode("the")) == 1
    assert tokenizer.encode("漢").tolist() == [1], "[UNK], a special token that texts give"
    (tmp_path / "bert.json").write_text(FILES["bert"])
    spec = TokenizerSpec(TokenizerKind.TOKENIZER_JSON, tokenizer.vocab_size, str(tmp_path / "bert.json"))
    corpus = open_corpus(prepared(tmp_path, tokenizer=spec))
    rows_SL = corpus.evaluation_rows(corpus.manifest.validation.tokens)
    held = sum(len(text.encode()) for text in texts(300))
    assert corpus.manifest.train.text_bytes + corpus.manifest.validation.text_bytes == held
    share = rows_SL.size / corpus.manifest.validation.tokens
    assert corpus.text_bytes(rows_SL) == pytest.approx(share * corpus.manifest.validation.text_bytes, abs=1)
    assert corpus.text_bytes(rows_SL) > tokenizer.text_bytes(rows_SL.reshape(-1))


def test_a_file_without_a_usable_end_has_eos_after_its_last_id():
    plain = json.loads(byte_level(texts(50), end="<pad>"))
    highest = max(plain["model"]["vocab"].values())
    for added in ([], plain["added_tokens"]):
        made = JsonTokenizer(json.dumps(plain | {"added_tokens": added}).encode())
        assert (made.eos_id, made.vocab_size) == (highest + 1, highest + 2)
    words = {"</s>": 0, "<unk>": 1, "a": 2}
    end = {"id": 0, "content": "</s>", "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
    tree = {"version": "1.0", "added_tokens": [end], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model}
    assert JsonTokenizer(json.dumps(tree).encode()).eos_id == 3, "a text with the word </s> gives its id"


GPT2 = FILES["gpt2"]
ADDED = json.loads(GPT2)["added_tokens"][0]
HOSTILE = [
    (b"", "not a tokenizer.json, or cut short"),
    (b"\xff\xfe", "not a tokenizer.json, or cut short: 'utf-8' codec"),
    (b"[]", "not a tokenizer.json, or cut short"),
    (b"[" * 100_000, "not a tokenizer.json, or cut short"),
    (GPT2[: len(GPT2) // 2], "not a tokenizer.json, or cut short"),
    (changed(GPT2, model__dropout=0.1), "model.dropout = 0.1: must be null"),
    (changed(GPT2, model__vocab={}, model__merges=[], added_tokens=[]), "vocabulary = 'empty'"),
    (changed(GPT2, model__vocab={"a": 4_000_000_000}, model__merges=[]), "id of the token .* = 4000000000: must be"),
    (changed(GPT2, model__vocab={"a": -1}, model__merges=[]), "not a tokenizer.json, or cut short"),
    (changed(GPT2, added_tokens=[ADDED | {"id": 9999, "content": "</s>"}]), "id of the added token '</s>' = 9999"),
    (
        changed(GPT2, added_tokens=[ADDED | {"id": 9999, "content": "x" * 5000}]),
        "id of the added token 'x{60}…' = 9999",
    ),
    (changed(GPT2, model__type="x" * 5000), "not a tokenizer.json, or cut short"),
    (changed(GPT2, pre_tokenizer={"type": "Split"}), "not a tokenizer.json, or cut short"),
]


@pytest.mark.parametrize(("content", "said"), HOSTILE)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, said):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"tokenizer\.json: {said}") as refused:
        open_tokenizer(str(file))
    assert len(str(refused.value)) < 400


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "tokenizer.json"
    with file.open("wb") as made:
        made.truncate(MOST_JSON_BYTES + 1)
    with pytest.raises(ValueError, match=r"bytes = 134217729: must be at most 128 MiB"):
        open_tokenizer(str(file))
    with pytest.raises(ValueError, match="no such tokenizer"):
        open_tokenizer(str(tmp_path / "absent.json"))


def test_a_text_that_the_model_has_no_id_for_is_named():
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"}
    made = JsonTokenizer(json.dumps({"version": "1.0", "model": model}).encode())
    with pytest.raises(ValueError, match=r"cannot encode 'b': .*UNK"):
        made.encode("b")


def test_an_error_inside_the_library_is_one_line(capfd):
    """This decoder reads beyond its text, at which the library panics."""
    strip = {"type": "Strip", "content": "a", "start": 0, "stop": 9}
    made = JsonTokenizer(changed(FILES["llama"], decoder=strip).encode())
    with pytest.raises(ValueError, match="cannot decode its ids: index out of bounds"):
        made.decode(made.encode("a"))


def test_a_corpus_is_prepared_with_it_by_any_number_of_processes(kind, tmp_path, capsys):
    file = tmp_path / f"{kind}.model"  # the kind is named, and the file may have any name
    file.write_text(FILES[kind])
    size = JsonTokenizer(file.read_bytes()).vocab_size
    spec = TokenizerSpec(TokenizerKind.TOKENIZER_JSON, size, str(file))
    data = data_spec(tmp_path, tokenizer=spec)
    words = flags(data, "--tokenizer", "tokenizer_json", "--tokenizer-path", str(file))
    assert main([*words, "--vocab-size", str(size + 1)]) == 1
    assert f"data.tokenizer.vocab_size = {size + 1}: must be {size}" in capsys.readouterr().err
    assert main([*words, "--vocab-size", str(size), "--jobs", "1"]) == 0
    manifest = read_manifest(data.directory)
    assert (manifest.tokenizer, manifest.vocab_size) == (spec, size)
    file.unlink()  # the folder has a copy
    assert load_tokenizer(data.directory, manifest).hash == manifest.tokenizer_hash
    assert "already prepared" in (main([*words, "--vocab-size", str(size)]), capsys.readouterr().out)[1]
    copy = tmp_path / "prepared" / "tokenizer.json"
    copy.write_text(changed(copy.read_text(), version="1.0", truncation=None, added_tokens=[]))
    with pytest.raises(ValueError, match=r"tokenizer\.json: corrupt"):
        load_tokenizer(data.directory, manifest)


def test_the_kind_needs_a_path_and_old_specs_are_as_they_were():
    with pytest.raises(ValueError, match="given for sentencepiece_file and tokenizer_json alone"):
        TokenizerSpec(TokenizerKind.TOKENIZER_JSON, 300)
    with pytest.raises(ValueError, match="no such tokenizer"):
        make_tokenizer(TokenizerSpec(TokenizerKind.TOKENIZER_JSON, 300, "absent.json"))


def test_a_file_of_weights_takes_the_tokenizer_json_beside_it(tmp_path):
    """The weights' vocabulary may be padded, and a mask token may lie above it. Larger ids of text are refused."""
    size = JsonTokenizer(GPT2.encode()).vocab_size
    mask = ADDED | {"id": size, "content": "<|mask|>"}
    (tmp_path / "tokenizer.json").write_text(file := changed(GPT2, added_tokens=[ADDED, mask]))
    assert JsonTokenizer(file.encode()).vocab_size == size + 1
    for vocab_size, fits in ((size, True), (size + 7, True), (size - 1, False)):
        spec = dataclasses.replace(TRUNK, n_layers=1, vocab_size=vocab_size, attention=Attention.CAUSAL)
        write_smdm(tmp_path / "model", random_weights(spec), spec, 8, True)
        model = load(tmp_path / "model")
        if fits:
            assert model.tokenizer.hash == JsonTokenizer(file.encode()).hash
        else:
            with pytest.raises(ValueError, match=rf"largest id of text = {size - 1}: must be below {size - 1}, the"):
                _ = model.tokenizer
