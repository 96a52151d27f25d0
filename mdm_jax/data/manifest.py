"""The manifest of a prepared corpus: the content of its shards, the settings that made them, and their hashes.

With the manifest, the planner counts epochs and a run checks its data without opening a shard. `data_hash` depends on
the content (shards and tokenizer), not on the place of the folder.

Version 2 has a file of block hashes next to each shard. Version 1 has none and is still read: a whole shard is
verified when it is first read.
"""

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass

from mdm_jax.files.storage import as_path, inside, is_file, write_atomic
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec, TokenizerKind, TokenizerSpec
from mdm_jax.spec.validation import build, require, to_dict

MANIFEST_VERSION = 2
READABLE_VERSIONS = (1, 2)
PYDOC_VERSION = 2
"""Version of the source `pydoc`: 1 was split by document; 2 is split by package, without near-duplicates."""
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.model"
TOKENIZER_JSON_FILE = "tokenizer.json"
SPLITS = ("train", "validation")
ITEM_BYTES = {"uint16": 2, "uint32": 4}
MOST_MANIFEST_BYTES = 64 << 20
BLOCK_BYTES = 64 << 10
"""Bytes of a shard that one hash covers. The first read of a row reads and verifies this much."""
SUM_BYTES = 32
HEX_DIGITS = re.compile("[0-9a-f]{64}")


def sums_file(shard_file: str) -> str:
    """The name of the file that holds the SHA-256 of each block of a shard."""
    return f"{shard_file}.sums"


def tokenizer_file(kind: TokenizerKind) -> str:
    """The name of the file in which prepared data keeps its tokenizer; bytes have none."""
    return TOKENIZER_JSON_FILE if kind is TokenizerKind.TOKENIZER_JSON else TOKENIZER_FILE


@dataclass(frozen=True)
class Shard:
    """One flat little-endian file of token ids."""

    file: str
    tokens: int
    bytes: int
    sha256: str
    sums_sha256: str = ""
    """SHA-256 of the file of block hashes; empty in version 1."""

    def __post_init__(self) -> None:
        inside("the data folder", self.file)
        require(self.tokens >= 1, f"{self.file}: tokens", self.tokens, "at least 1")
        require(bool(HEX_DIGITS.fullmatch(self.sha256)), f"{self.file}: sha256", self.sha256, "64 hex digits")
        sums = self.sums_sha256
        require(not sums or bool(HEX_DIGITS.fullmatch(sums)), f"{self.file}: sums_sha256", sums, "64 hex digits")


@dataclass(frozen=True)
class Split:
    """Counts of one split. `tokens` includes an EOS for each document; `text_bytes` counts UTF-8 text without EOS."""

    tokens: int
    documents: int
    text_bytes: int
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        total = sum(shard.tokens for shard in self.shards)
        require(self.tokens == total >= 1, "tokens", self.tokens, f"the {total} tokens of the shards, and at least 1")
        require(self.documents >= 1, "documents", self.documents, "at least 1")
        require(self.text_bytes >= 1, "text_bytes", self.text_bytes, "at least 1")

    @property
    def bytes_per_token(self) -> float:
        """Mean bytes of UTF-8 text for each token, EOS included. Bits per byte = nats per token / this / ln 2."""
        return self.text_bytes / self.tokens

    def unique_tokens(self, seq_len: int) -> int:
        """Training tokens of one epoch: `tokens` rounded down to whole rows of `seq_len`."""
        return self.tokens // seq_len * seq_len


@dataclass(frozen=True)
class Manifest:
    """A prepared corpus."""

    corpus: CorpusSpec
    tokenizer: TokenizerSpec
    validation_fraction: float
    vocab_size: int
    eos_id: int
    dtype: str
    tokenizer_hash: str
    data_hash: str
    train: Split
    validation: Split
    schema_version: int = MANIFEST_VERSION
    pydoc_version: int = PYDOC_VERSION
    """Version of the source `pydoc`; ignored for other sources."""
    skipped: int = 0
    """Number of bad lines and files that were skipped because of `--skip-bad`."""

    def __post_init__(self) -> None:
        require(self.dtype in ITEM_BYTES, "dtype", self.dtype, f"one of {', '.join(ITEM_BYTES)}")
        require(0 <= self.eos_id < self.vocab_size, "eos_id", self.eos_id, f"below vocab_size = {self.vocab_size}")
        most = 1 << 8 * ITEM_BYTES[self.dtype]
        require(self.ids <= most, "vocab_size", self.vocab_size, f"at most {most} ids for {self.dtype}")
        names = [shard.file for split in (self.train, self.validation) for shard in split.shards]
        require(len(set(names)) == len(names), "shards", names, "different files")
        for split in (self.train, self.validation):
            for shard in split.shards:
                size = shard.tokens * ITEM_BYTES[self.dtype]
                require(shard.bytes == size, f"{shard.file}: bytes", shard.bytes, f"{size}, as its tokens take")
        expected = data_hash(self.tokenizer_hash, self.train, self.validation)
        require(self.data_hash == expected, "data_hash", self.data_hash, f"{expected}, the hash of the shards")

    @property
    def is_pairs(self) -> bool:
        return self.corpus.source is CorpusSource.PAIRS

    @property
    def ids(self) -> int:
        """The number of different ids in the shards: the vocabulary, and one more that ends the prompts of pairs."""
        return self.vocab_size + self.is_pairs

    def positions(self, split: str, seq_len: int) -> int:
        """Tokens of a split in whole rows of `seq_len`. A pair takes a whole row, with its padding."""
        held = self.split(split)
        return held.documents * seq_len if self.is_pairs else held.unique_tokens(seq_len)

    def split(self, name: str) -> Split:
        """The split `train` or `validation`."""
        require(name in SPLITS, "split", name, f"one of {', '.join(SPLITS)}")
        return getattr(self, name)


def data_hash(tokenizer_hash: str, train: Split, validation: Split) -> str:
    """SHA-256 (hex) of the tokenizer's hash and the hashes of all shards, by split and in order."""
    content = {"train": train, "validation": validation}
    hashes = {name: [shard.sha256 for shard in split.shards] for name, split in content.items()}
    text = json.dumps({"tokenizer": tokenizer_hash, **hashes}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(directory: str | os.PathLike) -> Manifest:
    """The manifest of a folder of shards.

    Raises:
        ValueError: the manifest (named) is absent, malformed, inconsistent or of an unknown schema version.
    """
    path = as_path(directory) / MANIFEST_FILE
    if not is_file(path):
        raise ValueError(f"{path}: no such file: prepare the corpus with python -m mdm_jax.data.prepare")
    try:
        require(path.stat().length <= MOST_MANIFEST_BYTES, "size", path.stat().length, "at most 64 MiB")
        tree = json.loads(path.read_text())
        require(isinstance(tree, dict), "manifest", type(tree).__name__, "a JSON object")
        version = tree.get("schema_version")
        require(version in READABLE_VERSIONS, "schema_version", version, " or ".join(map(str, READABLE_VERSIONS)))
        return build(Manifest, {"pydoc_version": 1, **tree} if version == 1 else tree)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a manifest ({error})") from None


def write_manifest(directory: str | os.PathLike, manifest: Manifest) -> None:
    """Writes `manifest.json` atomically. Call it last: a folder with a manifest counts as complete."""
    write_atomic(as_path(directory) / MANIFEST_FILE, json.dumps(to_dict(manifest), indent=1) + "\n")


def check_matches(manifest: Manifest, data: DataSpec) -> None:
    """Returns if the prepared shards match a run's data spec.

    A run that was planned with exactly these shards may use them even if the version of `pydoc` has changed since.

    Raises:
        ValueError: they differ; the message names the first field that does.
    """
    for name in ("corpus", "tokenizer", "validation_fraction"):
        have, want = getattr(manifest, name), getattr(data, name)
        if have != want:
            raise ValueError(f"{data.directory}: prepared with another data.{_difference(name, have, want)}")
    planned = data.data_hash == manifest.data_hash
    if data.corpus.source is CorpusSource.PYDOC and manifest.pydoc_version != PYDOC_VERSION and not planned:
        raise ValueError(
            f"{data.directory}: prepared as version {manifest.pydoc_version} of the corpus pydoc, now {PYDOC_VERSION},"
            " which has other validation text: prepare again with --force, or into another directory; runs of the two"
            " versions cannot be compared"
        )
    vocab = data.tokenizer.vocab_size
    if manifest.vocab_size != vocab:
        held = f"{data.directory}: the shards' vocabulary has {manifest.vocab_size} ids"
        raise ValueError(f"{held}: set data.tokenizer.vocab_size and model.vocab_size (now {vocab}) to that")
    if data.data_hash and not planned:
        raise ValueError(
            f"{data.directory}: data_hash {manifest.data_hash[:12]} is not the planned {data.data_hash[:12]}:"
            " the corpus changed since; plan again, or prepare the same files"
        )


def _difference(name: str, have: object, want: object) -> str:
    """The first field in which two specs differ, with both values and the fix: `corpus.path ('a', not 'b'): …`."""
    if dataclasses.is_dataclass(have) and dataclasses.is_dataclass(want):
        fields = [f.name for f in dataclasses.fields(have)]
        first = next(f for f in fields if getattr(have, f) != getattr(want, f))
        return _difference(f"{name}.{first}", getattr(have, first), getattr(want, first))
    return f"{name} ({to_dict(have)!r}, not {to_dict(want)!r}): prepare again with --force, or into another directory"
