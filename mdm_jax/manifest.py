"""The manifest of a prepared corpus: what the shards hold, how they were made, and the hashes that pin them.

It is a fact of floor 0, so that the planner counts epochs and a run checks its data without opening a shard.
`data_hash` depends on the content (shards and tokenizer) and never on where the folder lies.

Version 2 has the hashes of each shard's blocks in a file beside the shard. Version 1 is read too: its shards are
verified whole when they are first read.
"""

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass

from mdm_jax.files.storage import as_path, inside, is_file, write_atomic
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec, TokenizerSpec
from mdm_jax.spec.validation import build, require, to_dict

MANIFEST_VERSION = 2
READABLE_VERSIONS = (1, 2)
PYDOC_VERSION = 2
"""How the source `pydoc` is made: 1 was split by document; 2 is split by package, without near-duplicates."""
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.model"
SPLITS = ("train", "validation")
ITEM_BYTES = {"uint16": 2, "uint32": 4}
MOST_MANIFEST_BYTES = 64 << 20
BLOCK_BYTES = 64 << 10
"""Bytes of a shard under one hash: what the first read of a row reads and verifies."""
SUM_BYTES = 32
HEX_DIGITS = re.compile("[0-9a-f]{64}")


def sums_file(shard_file: str) -> str:
    """The name of the file that holds the SHA-256 of each block of a shard."""
    return f"{shard_file}.sums"


@dataclass(frozen=True)
class Shard:
    """One flat little-endian file of token ids."""

    file: str
    tokens: int
    bytes: int
    sha256: str
    sums_sha256: str = ""
    """SHA-256 of the file with the hashes of the blocks; empty in version 1."""

    def __post_init__(self) -> None:
        inside("the data folder", self.file)
        require(self.tokens >= 1, f"{self.file}: tokens", self.tokens, "at least 1")
        require(bool(HEX_DIGITS.fullmatch(self.sha256)), f"{self.file}: sha256", self.sha256, "64 hex digits")
        sums = self.sums_sha256
        require(not sums or bool(HEX_DIGITS.fullmatch(sums)), f"{self.file}: sums_sha256", sums, "64 hex digits")


@dataclass(frozen=True)
class Split:
    """Counts of one split; `tokens` includes one EOS a document, `text_bytes` is the UTF-8 text without them."""

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
        """Bytes of UTF-8 text a token stands for (EOS is a token): nats per token / this / ln 2 is bits per byte."""
        return self.text_bytes / self.tokens

    def unique_tokens(self, seq_len: int) -> int:
        """Tokens in the whole rows of `seq_len` that one epoch trains on."""
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
    """How the source `pydoc` was made; of no meaning for other sources."""
    skipped: int = 0
    """Bad lines and files that were passed over because the user asked for it."""

    def __post_init__(self) -> None:
        require(self.dtype in ITEM_BYTES, "dtype", self.dtype, f"one of {', '.join(ITEM_BYTES)}")
        require(0 <= self.eos_id < self.vocab_size, "eos_id", self.eos_id, f"below vocab_size = {self.vocab_size}")
        most = 1 << 8 * ITEM_BYTES[self.dtype]
        require(self.vocab_size <= most, "vocab_size", self.vocab_size, f"at most {most} for {self.dtype}")
        names = [shard.file for split in (self.train, self.validation) for shard in split.shards]
        require(len(set(names)) == len(names), "shards", names, "different files")
        for split in (self.train, self.validation):
            for shard in split.shards:
                size = shard.tokens * ITEM_BYTES[self.dtype]
                require(shard.bytes == size, f"{shard.file}: bytes", shard.bytes, f"{size}, as its tokens take")
        expected = data_hash(self.tokenizer_hash, self.train, self.validation)
        require(self.data_hash == expected, "data_hash", self.data_hash, f"{expected}, the hash of the shards")

    def split(self, name: str) -> Split:
        """The split `train` or `validation`."""
        require(name in SPLITS, "split", name, f"one of {', '.join(SPLITS)}")
        return getattr(self, name)


def data_hash(tokenizer_hash: str, train: Split, validation: Split) -> str:
    """SHA-256 (hex) of the tokenizer's hash and of every shard's, by split and in order."""
    content = {"train": train, "validation": validation}
    hashes = {name: [shard.sha256 for shard in split.shards] for name, split in content.items()}
    text = json.dumps({"tokenizer": tokenizer_hash, **hashes}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(directory: str | os.PathLike) -> Manifest:
    """The manifest of a folder of shards.

    Raises:
        ValueError: there is none, or it is malformed, inconsistent or of another schema version; the file is named.
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
    """Writes `manifest.json` atomically; it comes last, so a folder that has one is complete."""
    write_atomic(as_path(directory) / MANIFEST_FILE, json.dumps(to_dict(manifest), indent=1) + "\n")


def check_matches(manifest: Manifest, data: DataSpec) -> None:
    """Returns if the prepared shards are what a run asks for.

    A run that was planned with these very shards may use them although the corpus `pydoc` is made otherwise now.

    Raises:
        ValueError: one line that names the first field in which they differ.
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
    """The first field in which two specs differ, as `corpus.path ('a', not 'b'): …`."""
    if dataclasses.is_dataclass(have) and dataclasses.is_dataclass(want):
        fields = [f.name for f in dataclasses.fields(have)]
        first = next(f for f in fields if getattr(have, f) != getattr(want, f))
        return _difference(f"{name}.{first}", getattr(have, first), getattr(want, first))
    return f"{name} ({to_dict(have)!r}, not {to_dict(want)!r}): prepare again with --force, or into another directory"
