"""The fourth tokenizer: a `tokenizer.json` of the `tokenizers` library, such as those of GPT-2, BERT and Llama.

Some settings that such files carry would change or cut a text. They are switched off: truncation, padding, the special
tokens that a template adds around a text, and special tokens that a text only quotes. BPE dropout is refused, because
it makes the ids random.

The tokenizer runs in one thread. A preparation has its own processes (`--jobs`).
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int32, Int64, Integer
from tokenizers.pre_tokenizers import ByteLevel

from mdm_jax.spec.validation import require

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the library reads it at each call, and a user's value stays

MOST_JSON_BYTES = 128 << 20
"""The largest published files have 33 MB."""
MOST_IDS = 1 << 24
EOS_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""Names of the token that ends a document, in order of preference: GPT-2, Llama 3, Llama 2, Gemma, BERT."""
PROBES = ("a", " Ab  c\n\t d ", "É e\u0301 \u212b ﬁ ½ 漢 😀")
"""Texts with what a normaliser may change: blanks at the ends and inside, case, accents, and compatibility forms."""
SHOWN_CHARACTERS = 60
MOST_MESSAGE = 300
"""Characters of a message of the library, which may quote a whole file."""
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class JsonTokenizer:
    """The tokenizer of a `tokenizer.json`.

    EOS is the first of `EOS_NAMES` that is a special token of the file and that no text is encoded to. If there is
    none, EOS is the id after the last.

    Attributes:
        keeps_text: whether `text_bytes` counts the bytes of the text that was encoded. It is True if `PROBES` come
            back, as with GPT-2 and Llama. It is False for WordPiece (BERT), which forgets spaces and case, and for a
            file that normalises the text or puts a blank before it (Qwen, RoBERTa).
        largest_text_id: the largest id that `encode` or EOS has. Other special tokens may have larger ids.
    """

    def __init__(self, model: bytes) -> None:
        """Reads the content of a file.

        Raises:
            ValueError: the content is too large, no tokenizer, or has ids that cannot be used; one line names why.
        """
        require(len(model) <= MOST_JSON_BYTES, "bytes", len(model), "at most 128 MiB for a tokenizer.json")
        self.model = model
        self.hash = hashlib.sha256(model).hexdigest()
        self._tokenizer, tree = _parse(model)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # a text that quotes `</s>` is text, and ends no document
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        _check_ids(self._tokenizer, vocabulary, tree)
        self._special = frozenset(i for i, t in self._tokenizer.get_added_tokens_decoder().items() if t.special)
        after_last = max(vocabulary.values()) + 1
        self.eos_id = next(self._usable_ends(), after_last)
        self.vocab_size = max(after_last, self.eos_id + 1)
        never_text = self._special - {self.eos_id} - _unknown(vocabulary, tree["model"])
        self.largest_text_id = max({self.eos_id, *vocabulary.values()} - never_text)
        byte_level = "ByteLevel" in _kinds_of_decoder(tree)
        self._bytes_of_id = _bytes_of_ids(vocabulary, self.vocab_size, self._special, byte_level)
        self.keeps_text = all(self._keeps(text) for text in PROBES)

    def encode(self, text: str) -> Int32[np.ndarray, "tokens"]:
        """The ids of a text, without EOS and without other special tokens.

        Raises:
            ValueError: the file's model has no id for a part of the text, or encodes a part of it to EOS.
        """
        ids = np.asarray(self._encode(text), np.int32)
        if self.eos_id in ids:
            raise ValueError(f"tokenizer.json encodes a part of a text to EOS (id {self.eos_id}): {_shown(text)}")
        return ids

    def encode_batch(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """The same as `ByteTokenizer.encode_batch`."""
        end = np.array([self.eos_id], np.int32)
        parts = [part for text in texts for part in (self.encode(text), end)]
        ids = np.concatenate([np.zeros(0, np.int32), *parts])
        return ids, np.array([len(part) + 1 for part in parts[::2]], np.int64)

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> str:
        """The text of ids, without special tokens. Bytes that are not UTF-8, as in a cut character, become U+FFFD."""
        kept = [int(i) for i in ids if i != self.eos_id]
        with _refused("tokenizer.json cannot decode its ids"):
            return self._tokenizer.decode(kept, skip_special_tokens=True)

    def text_bytes(self, ids: Integer[np.ndarray, "tokens"]) -> int:
        """The number of UTF-8 bytes of the ids' text; special tokens have none.

        Byte-level ids are counted one by one, and other ids by `decoded_bytes`.
        """
        if self._bytes_of_id is not None:
            return int(self._bytes_of_id[ids].sum())
        return decoded_bytes(ids, self.eos_id, self._is_byte, self.decode)

    def _encode(self, text: str) -> list[int]:
        with _refused(f"tokenizer.json cannot encode {_shown(text)}"):
            return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def _keeps(self, text: str) -> bool:
        try:
            ids = self.encode(text)
            return self.decode(ids) == text and self.text_bytes(ids) == len(text.encode())
        except ValueError:  # the text has no ids, or they have no text
            return False

    def _usable_ends(self) -> Iterator[int]:
        """Ids of the names in `EOS_NAMES` that are special and that their own name, as a text, does not give."""
        for name in EOS_NAMES:
            number = self._tokenizer.token_to_id(name)
            if number in self._special and number not in self._encode(name):
                yield number

    def _is_byte(self, number: int) -> bool:
        return bool(BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(number) or ""))


def decoded_bytes(
    ids: Integer[np.ndarray, "tokens"],
    eos_id: int,
    is_byte: Callable[[int], bool],
    decode: Callable[[np.ndarray], str],
) -> int:
    """The number of UTF-8 bytes of the documents in `ids`.

    Each document is decoded. A document begins at the first id and after each EOS. Ids of single bytes that end the
    array count one byte each: their character may be cut, and `decode` would replace it by another one.
    """
    documents = np.split(ids, np.flatnonzero(ids == eos_id) + 1)
    last = documents[-1]
    cut = sum(1 for _ in itertools.takewhile(is_byte, reversed(last.tolist())))
    documents[-1] = last[: len(last) - cut]
    return cut + sum(len(decode(document).encode()) for document in documents)


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turns an error of the library inside into a ValueError that begins with `what`.

    The library raises the bare class Exception, and for a panic of its own one that is not even an Exception.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ValueError(f"{what}: {str(error)[:MOST_MESSAGE]}") from None
        raise


def _shown(text: str) -> str:
    """The beginning of a text, for a message."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def _parse(model: bytes) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The library's tokenizer, and the JSON that it was read from.

    Raises:
        ValueError: the content is no tokenizer, or its ids are random.
    """
    with _refused("not a tokenizer.json, or cut short"):
        text = model.decode()
        tokenizer = tokenizers.Tokenizer.from_str(text)
        tree = json.loads(text)
    dropout = tree["model"].get("dropout")
    require(not dropout, "model.dropout", dropout, "null: with dropout the ids of a text are random")
    return tokenizer, tree


def _check_ids(tokenizer: tokenizers.Tokenizer, vocabulary: dict[str, int], tree: dict[str, Any]) -> None:
    """Returns if every id is usable, and is the one that the file gives.

    Raises:
        ValueError: there is no token, an id is too large, or the library numbers an added token anew.
    """
    require(bool(vocabulary), "vocabulary", "empty", "at least one token")
    name, most = max(vocabulary.items(), key=lambda item: item[1])
    require(most < MOST_IDS - 1, f"id of the token {_shown(name)}", most, "below 2^24 - 1")
    for token in tree.get("added_tokens") or ():
        read, given = tokenizer.token_to_id(token["content"]), token["id"]
        bound = f"{read}: the library numbers added tokens after the last id of the model"
        require(read == given, f"id of the added token {_shown(token['content'])}", given, bound)


def _unknown(vocabulary: dict[str, int], model: dict[str, Any]) -> set[int]:
    """The id that stands for what has no id; none if the model has no such token."""
    by_name = (number for token, number in vocabulary.items() if token == model.get("unk_token"))
    return {number for number in (*by_name, model.get("unk_id")) if number is not None}


def _kinds_of_decoder(tree: dict[str, Any]) -> set[str]:
    """The types of the file's decoder, and of its parts if it is a sequence."""
    decoder = tree.get("decoder") or {}
    return {str(part.get("type")) for part in (decoder, *decoder.get("decoders", ()))}


def _bytes_of_ids(
    vocabulary: dict[str, int], size: int, special: frozenset[int], byte_level: bool
) -> Int64[np.ndarray, "V"] | None:
    """The bytes that each byte-level id stands for; None for other vocabularies.

    Each byte is one letter of the byte-level alphabet. A token with other letters stands for its own UTF-8 text.
    """
    if not byte_level:
        return None
    letters, count = set(ByteLevel.alphabet()), np.zeros(size, np.int64)
    for token, number in vocabulary.items():
        if number not in special:
            count[number] = len(token) if letters.issuperset(token) else len(token.encode())
    return count
