"""Tokenizer files of a Hugging Face folder.

Bytes become `tokenizer.json`: a byte-level BPE without merges, in which the id of a byte is the byte. Nucleotides
become one of letters, which reads lower case as upper case, U as T, and any other character as N. A sentencepiece
model is copied as `tokenizer.model`. A `tokenizer.json` is copied too, but loses its template, truncation and padding,
which were switched off in training. The start token of an ARM is put before each text, as in training.
`tokenizer_config.json` names the special tokens. Their names inside a text stay text: `split_special_tokens` says so.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import sentencepiece

from mdm_jax.data.manifest import TOKENIZER_FILE, TOKENIZER_JSON_FILE
from mdm_jax.files.storage import Path, is_file
from mdm_jax.spec import BYTES_VOCAB_SIZE, NUCLEOTIDES, NUCLEOTIDES_VOCAB_SIZE, Attention, ModelSpec

CONFIG_FILE = "tokenizer_config.json"
EOS, START, MASK = "<|endoftext|>", "<|start|>", "<|mask|>"
EXTRA_OF_FAMILY = {True: ("bos_token", START), False: ("mask_token", MASK)}
"""The role and the name of id V in a causal model, and in another."""
VISIBLE_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""Bytes that byte-level BPE writes as the character of the same number. The others become characters from U+0100 on."""


@runtime_checkable
class Tokenizer(Protocol):
    """What the files need of a tokenizer: `model` is the content of its own file; bytes and nucleotides have none."""

    model: bytes
    eos_id: int
    vocab_size: int


def tokenizer_files(tokenizer: Tokenizer, spec: ModelSpec, has_extra: bool, seq_len: int) -> dict[str, bytes]:
    """The content of each tokenizer file, by its name.

    Args:
        tokenizer: its own file is a sentencepiece model, a `tokenizer.json`, or none for bytes and nucleotides. It
            may have fewer ids than the model. The extra token then has no name, because transformers numbers names
            without a gap.
        spec: shape of the model. The tokenizer of an ARM puts the start token before a text, if there is one.
        has_extra: whether id V is a token that the model reads: MASK or the start token.
        seq_len: tokens of a row.
    """
    model, vocab, causal = tokenizer.model, spec.vocab_size, spec.attention is Attention.CAUSAL
    role, usual_name = EXTRA_OF_FAMILY[causal]
    name, end = _unused(usual_name, model), {tokenizer.eos_id: _unused(EOS, model)}
    starts, extra = causal and has_extra, {vocab: name} if has_extra and tokenizer.vocab_size == vocab else {}
    config: dict[str, Any] = {"model_max_length": seq_len, "clean_up_tokenization_spaces": False}
    config |= {"split_special_tokens": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {"eos_token": end[tokenizer.eos_id]} | ({role: name} if extra else {})
    if not model:
        assert vocab in (BYTES_VOCAB_SIZE, NUCLEOTIDES_VOCAB_SIZE)
        written = _bytes_json if vocab == BYTES_VOCAB_SIZE else _nucleotides_json
        return {TOKENIZER_JSON_FILE: _encoded(written(end | extra, starts)), CONFIG_FILE: _encoded(config)}
    if model.lstrip().startswith(b"{"):
        tree = json.loads(model)
        own = {token["id"]: token["content"] for token in tree.get("added_tokens") or ()}
        as_trained = {"post_processor": _before_text(vocab, name) if starts else None}
        tree |= as_trained | dict.fromkeys(("truncation", "padding")) if has_extra else {}
        config |= _end_and_added(end, own.get(tokenizer.eos_id), extra)
        return {TOKENIZER_JSON_FILE: _encoded(tree), CONFIG_FILE: _encoded(config)}
    return {TOKENIZER_FILE: model, CONFIG_FILE: _encoded(config | _sentencepiece_config(model, end, extra, starts))}


def holds_bytes(folder: Path) -> bool:
    """Whether the folder has no tokenizer, or the one that `tokenizer_files` writes for bytes."""
    return _holds(folder, _bytes_json, BYTES_VOCAB_SIZE)


def holds_nucleotides(folder: Path) -> bool:
    """Whether the folder has no tokenizer, or the one that `tokenizer_files` writes for nucleotides."""
    return _holds(folder, _nucleotides_json, NUCLEOTIDES_VOCAB_SIZE)


def _holds(folder: Path, written: Callable[[dict[int, str], bool], dict[str, Any]], vocab_size: int) -> bool:
    if is_file(folder / TOKENIZER_FILE):
        return False
    if not is_file(folder / TOKENIZER_JSON_FILE):
        return True
    end = {vocab_size - 1: EOS}
    trees = [written(end, False), written(end | {vocab_size: MASK}, False), written(end | {vocab_size: START}, True)]
    ours = [_encoded(tree) for tree in trees]
    file = folder / TOKENIZER_JSON_FILE
    return file.stat().length <= max(map(len, ours)) and file.read_bytes() in ours


def _bytes_json(special: dict[int, str], starts: bool) -> dict[str, Any]:
    """The content of `tokenizer.json` for bytes and these special tokens."""
    hidden = [byte for byte in range(256) if byte not in VISIBLE_BYTES]
    vocab = {chr(byte): byte for byte in VISIBLE_BYTES} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
    vocab = dict(sorted(vocab.items(), key=lambda item: item[1])) | {name: i for i, name in special.items()}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    start = _before_text(BYTES_VOCAB_SIZE, START) if starts else None
    return _characters_json(vocab, special, normalizer=None, pre_tokenizer=level, post_processor=start, decoder=level)


def _nucleotides_json(special: dict[int, str], starts: bool) -> dict[str, Any]:
    """The content of `tokenizer.json` for nucleotides and these special tokens."""
    vocab = {letter: i for i, letter in enumerate(NUCLEOTIDES)} | {name: i for i, name in special.items()}
    read_as = {f"[{letter}{letter.lower()}]": letter for letter in NUCLEOTIDES} | {"[Uu]": "T", "[^ACGT]": "N"}
    replaced = [{"type": "Replace", "pattern": {"Regex": a}, "content": b} for a, b in read_as.items()]
    return _characters_json(
        vocab,
        special,
        normalizer={"type": "Sequence", "normalizers": replaced},
        pre_tokenizer=None,
        post_processor=_before_text(NUCLEOTIDES_VOCAB_SIZE, START) if starts else None,
        decoder={"type": "Fuse"},
    )


def _characters_json(vocab: dict[str, int], special: dict[int, str], **steps: dict[str, Any] | None) -> dict[str, Any]:
    """The content of `tokenizer.json` for a BPE without merges; `steps` are its four steps around the BPE."""
    no_options = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": int(i), **token} for i, token in _added(special).items()],
        **steps,
        "model": {"type": "BPE", **no_options, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []},
    }


def _before_text(start_id: int, name: str) -> dict[str, Any]:
    """The step that puts the start token before a text, and before the first text of a pair."""
    start, first = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = [start, first, {"Sequence": {"id": "B", "type_id": 0}}]
    special = {name: {"id": name, "ids": [start_id], "tokens": [name]}}
    return {"type": "TemplateProcessing", "single": [start, first], "pair": pair, "special_tokens": special}


def _sentencepiece_config(model: bytes, end: dict[int, str], extra: dict[int, str], starts: bool) -> dict[str, Any]:
    """Keys of `tokenizer_config.json` for Hugging Face's class of sentencepiece models with byte fallback."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    own_end = next((processor.id_to_piece(i) for i in end if i < processor.get_piece_size()), None)
    own_start = {} if starts else {"bos_token": None}  # the class has "<s>" by default
    config = {"tokenizer_class": "LlamaTokenizer", "unk_token": processor.id_to_piece(processor.unk_id())}
    config |= {"legacy": False, "add_prefix_space": processor.encode("a", out_type=str)[0].startswith("\u2581")}
    config |= {"add_bos_token": starts, "add_eos_token": False}
    return config | own_start | _end_and_added(end, own_end, extra)


def _end_and_added(end: dict[int, str], own_end: str | None, extra: dict[int, str]) -> dict[str, Any]:
    """Keys of `tokenizer_config.json`: EOS by its own name, if it has one, and the tokens that the file lacks."""
    added = extra if own_end else end | extra
    return {"added_tokens_decoder": _added(added)} | ({"eos_token": own_end} if own_end else {})


def _unused(name: str, model: bytes) -> str:
    """The name, lengthened until no token of the tokenizer's file has it."""
    while name.encode() in model:
        name = f"{name[:-2]}_|>"
    return name


def _added(tokens: dict[int, str]) -> dict[str, dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return {str(i): {"content": name, **flags} for i, name in tokens.items()}


def _encoded(tree: dict[str, Any]) -> bytes:
    return (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode()
