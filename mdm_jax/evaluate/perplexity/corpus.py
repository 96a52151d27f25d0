"""The texts of `--corpus NAME=PATH`, and their tokens under each tokenizer. All models read the same texts."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Int32, Int64

from mdm_jax.data.sources.files import endings, find_files
from mdm_jax.data.sources.pieces import SUFFIXES, no_text_message, pieces_of, read_piece
from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.files.storage import as_path
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec
from mdm_jax.spec.validation import require

SOURCES = (CorpusSource.JSONL, CorpusSource.PARQUET, CorpusSource.FASTA, CorpusSource.TEXT)
BATCH_DOCUMENTS = 512


@dataclass(frozen=True)
class Encoded:
    """The ids of all documents under one tokenizer, EOS after each document, and the number of ids of each."""

    ids: Int32[np.ndarray, "tokens"]
    tokens_D: Int64[np.ndarray, "D"]


@dataclass(frozen=True)
class EvalCorpus:
    """Documents: the UTF-8 bytes of each one, and their tokens under each tokenizer, by the tokenizer's hash."""

    name: str
    bytes_D: Int64[np.ndarray, "D"]
    encoded: Mapping[str, Encoded]


def parse_corpus(text: str) -> tuple[str, str]:
    """The name and the path of `NAME=PATH`.

    Raises:
        ValueError: one of them is missing.
    """
    name, mark, path = text.partition("=")
    require(bool(name.strip() and mark and path), "--corpus", text, "NAME=PATH, such as wiki=texts/wiki.jsonl")
    return name.strip(), path


def source_of(path: str) -> CorpusSource:
    """The kind of the files at a path: JSONL, Parquet and FASTA by their endings, and otherwise text.

    Raises:
        ValueError: nothing is there, or a folder or glob has files of two kinds.
    """
    if not (as_path(path).is_dir() or glob.has_magic(path)):
        return next((source for source in SOURCES if path.endswith(endings(SUFFIXES[source]))), CorpusSource.TEXT)
    found = [source for source in SOURCES if _holds(path, source)]
    kinds = ", ".join(source.value for source in found)
    require(len(found) <= 1, path, kinds, "files of one kind: name one of them with a glob, such as 'folder/*.jsonl'")
    known = ", ".join(ending for source in SOURCES for ending in SUFFIXES[source])
    require(bool(found), path, "no text", f"a folder or glob of files that end in {known}")
    return found[0]


def _holds(path: str, source: CorpusSource) -> bool:
    """Whether a folder or glob has a file of this kind."""
    try:
        return any(str(file).endswith(endings(SUFFIXES[source])) for file in find_files(path, SUFFIXES[source]))
    except ValueError:  # no file at all
        return False


def read_corpus(name: str, path: str, text_field: str, tokenizers: Sequence[Tokenizer], max_tokens: int) -> EvalCorpus:
    """The documents at a path in order, repeats included, while no tokenizer needs more than `max_tokens` for them.

    Args:
        name: the name of the corpus in the table.
        path: a file, folder or glob of text, JSONL or Parquet.
        text_field: the field of a record with its text.
        tokenizers: the tokenizers of all models.
        max_tokens: the most tokens, EOS included; 0 takes all documents.

    Raises:
        ValueError: no text, a bad file (the message names it), or a first document with more than `max_tokens` tokens.
    """
    corpus, different = CorpusSpec(source_of(path), path, text_field), {t.hash: t for t in tokenizers}
    texts, sizes, parts = _texts(corpus), list[int](), {key: list[tuple]() for key in different}
    left = dict.fromkeys(different, max_tokens)
    while batch := list(islice(texts, BATCH_DOCUMENTS)):
        encoded = {key: tokenizer.encode_batch(batch) for key, tokenizer in different.items()}
        kept = len(batch)
        if max_tokens:
            fitting = [np.searchsorted(counts.cumsum(), left[key], "right") for key, (_, counts) in encoded.items()]
            kept = int(min(fitting))
        for key, (ids, counts) in encoded.items():
            parts[key].append((ids[: counts[:kept].sum()], counts[:kept]))
            left[key] -= int(counts[:kept].sum())
        sizes += [len(text.encode()) for text in batch[:kept]]
        if kept < len(batch):
            need = max(int(counts[0]) for _, counts in encoded.values())
            require(bool(sizes), "--max-tokens", max_tokens, f"at least {need}, the first document of {name}")
            break
    if not sizes:
        raise ValueError(no_text_message(corpus))
    streams = {key: Encoded(*map(np.concatenate, zip(*held, strict=True))) for key, held in parts.items()}
    return EvalCorpus(name, np.array(sizes, np.int64), streams)


def _texts(corpus: CorpusSpec) -> Iterator[str]:
    for piece in pieces_of(corpus):
        for document in read_piece(corpus, piece, DataSpec.validation_fraction):
            yield document.text
