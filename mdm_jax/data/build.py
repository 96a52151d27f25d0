"""Builds the shards of a corpus: several processes turn pieces into sealed parts, and parts become shards.

The shards have each document once, in the order of the corpus, for any number of processes. A document's split depends
only on its own text (on its package for `pydoc`), so a new document does not move others. EOS ends each document.
"""

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdm_jax.data.duplicates import first_of_each
from mdm_jax.data.manifest import SPLITS, Manifest, Split, data_hash, tokenizer_file, write_manifest
from mdm_jax.data.parts import Part, Task, make_part, name_of
from mdm_jax.data.shards import SHARD_TOKENS, ShardWriter
from mdm_jax.data.sources.pieces import PIECE_BYTES, Piece, labelled, no_text_message, pieces_of
from mdm_jax.data.tokenizer import TRAINING_BYTES, WITHOUT_FILE, make_tokenizer, open_tokenizer
from mdm_jax.data.workers import in_order
from mdm_jax.files.storage import Path, as_path, is_file, write_atomic
from mdm_jax.spec import CorpusSource, DataSpec, TokenizerKind
from mdm_jax.spec.validation import to_dict

PARTS = "parts"
CHUNK_TOKENS = 1 << 21


@dataclass(frozen=True)
class Progress:
    """Progress of a preparation. `done` and `total` are in bytes of the files (in records for TFDS)."""

    done: int
    total: int
    documents: int
    skipped: tuple[str, ...] = ()
    """Messages about the bad lines and files that were skipped in the latest piece; at most 21."""


Report = Callable[[Progress], None]
Writers = Mapping[str, ShardWriter]


def build_shards(
    data: DataSpec,
    folder: Path,
    report: Report = lambda progress: None,
    shard_tokens: int = SHARD_TOKENS,
    jobs: int = 1,
    skip_bad: bool = False,
    piece_bytes: int = PIECE_BYTES,
) -> Manifest:
    """Writes shards and tokenizer into a folder, and the manifest last. Finished parts in the folder are used again.

    Args:
        data: corpus, tokenizer and split.
        folder: an empty folder, or the folder of an interrupted call with the same `data`.
        report: called after each piece.
        shard_tokens: maximum number of ids in a shard.
        jobs: maximum number of processes; the result is the same for any number.
        skip_bad: skip bad lines of JSONL and bad files.
        piece_bytes: bytes of plain JSONL that one process reads at a time.

    Raises:
        ValueError: the corpus is absent, corrupt or too small for its splits, or the tokenizer is bad.
        OSError: the disk is full or not writable; finished parts remain.
    """
    work = folder / PARTS
    work.mkdir(parents=True, exist_ok=True)
    pieces = pieces_of(data.corpus, piece_bytes)
    model = _tokenizer_model_path(data, pieces, work, skip_bad)
    tokenizer = open_tokenizer(model, data.tokenizer.kind)
    vocab_size = data.tokenizer.vocab_size
    ids = vocab_size + (data.corpus.source is CorpusSource.PAIRS)
    dtype = "uint16" if ids <= 1 << 16 else "uint32"
    tasks = [Task(piece, data, str(work), dtype, tokenizer.hash, model, skip_bad) for piece in pieces]
    parts = _parts_up_to(tasks, jobs, data.corpus.max_bytes, report)
    try:
        train, validation = _write_splits(parts, data, folder, dtype, shard_tokens)
    except ValueError:
        shutil.rmtree(work)
        raise
    if tokenizer.model:
        write_atomic(folder / tokenizer_file(data.tokenizer.kind), tokenizer.model)
    manifest = Manifest(
        corpus=data.corpus,
        tokenizer=data.tokenizer,
        validation_fraction=data.validation_fraction,
        vocab_size=vocab_size,
        eos_id=tokenizer.eos_id,
        dtype=dtype,
        tokenizer_hash=tokenizer.hash,
        data_hash=data_hash(tokenizer.hash, train, validation),
        train=train,
        validation=validation,
        skipped=sum(part.skipped_count for part in parts),
    )
    write_manifest(folder, manifest)
    shutil.rmtree(work)
    return manifest


def _write_splits(parts: Sequence[Part], data: DataSpec, folder: Path, dtype: str, shard_tokens: int) -> list[Split]:
    """Writes the training and the validation split, and returns both.

    Raises:
        ValueError: the corpus or one of the splits has no text.
    """
    if not any(part.documents for part in parts):
        raise ValueError(no_text_message(data.corpus))
    with contextlib.ExitStack() as stack:
        writers = {name: ShardWriter(folder, name, dtype, shard_tokens) for name in SPLITS}
        for writer in writers.values():
            stack.callback(writer.close)
        _write_parts(parts, str(folder / PARTS), dtype, data.corpus.max_bytes, writers)
        return [writers[name].finish() for name in SPLITS]


def _parts_up_to(tasks: Sequence[Task], jobs: int, max_bytes: int, report: Report) -> list[Part]:
    """The first parts that together have `max_bytes` of distinct texts; all parts if `max_bytes` is 0."""
    parts, held, documents, done = [], 0, 0, 0
    total, next_check = sum(task.piece.weight for task in tasks), max_bytes
    report(Progress(0, total, 0))
    for task, part in zip(tasks, results := in_order(make_part, tasks, jobs), strict=True):
        parts.append(part)
        held, documents, done = held + part.text_bytes, documents + part.documents, done + task.piece.weight
        report(Progress(done, total, documents, part.skipped))
        if held >= next_check > 0:
            different = sum(
                int(index["text_bytes"][first].sum()) for index, first in _first_documents(parts, task.folder)
            )
            if different >= max_bytes:
                break
            next_check = held + max(max_bytes - different, held // 8)
    results.close()
    return parts


def _first_documents(parts: Sequence[Part], folder: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each part's index, and a mask of its documents that differ from all earlier ones."""
    total = sum(part.documents for part in parts)
    first = first_of_each((part.index(folder) for part in parts), total, as_path(folder))
    start = 0
    for part in parts:
        yield part.index(folder), first[start : start + part.documents]
        start += part.documents


def _write_parts(parts: Sequence[Part], folder: str, dtype: str, max_bytes: int, writers: Writers) -> None:
    """Writes each document once to its split, in order, until `max_bytes` of text are written."""
    room = max_bytes or sys.maxsize
    for part, (index, first) in zip(parts, _first_documents(parts, folder), strict=True):
        held = np.cumsum(index["text_bytes"] * first.astype(np.int64))
        count = min(int(np.searchsorted(held, room)) + 1, len(index))
        _write_documents(part.ids(folder, dtype), index[:count], first[:count], writers)
        room -= int(held[count - 1]) if count else 0
        if room <= 0:
            return


def _write_documents(ids: np.ndarray, index: np.ndarray, first: np.ndarray, writers: Writers) -> None:
    """Writes the documents of one part that `first` marks, about two million ids at a time."""
    ends = np.cumsum(index["tokens"], dtype=np.int64)
    begun = 0
    while begun < len(index):
        token = int(ends[begun - 1]) if begun else 0
        stop = max(begun + 1, int(np.searchsorted(ends, token + CHUNK_TOKENS, "right")))
        rows, chunk = index[begun:stop], ids[token : int(ends[stop - 1])]
        for name, validation in (("train", False), ("validation", True)):
            mine = first[begun:stop] & (rows["validation"] == validation)
            if mine.any():
                own = chunk if mine.all() else chunk[np.repeat(mine, rows["tokens"])]
                writers[name].add(own, int(rows["text_bytes"][mine].sum(dtype=np.int64)), int(mine.sum()))
        begun = stop


def _tokenizer_model_path(data: DataSpec, pieces: Sequence[Piece], work: Path, skip_bad: bool) -> str:
    """The path of the tokenizer's model, which is trained if no earlier attempt has done so; empty if it needs none."""
    if data.tokenizer.kind in WITHOUT_FILE:
        return ""
    decides = [to_dict(data.corpus), to_dict(data.tokenizer), data.validation_fraction, skip_bad, to_dict(pieces)]
    name = name_of(decides)
    file = f"{name}{as_path(tokenizer_file(data.tokenizer.kind)).suffix}"
    path, seal = work / file, work / f"{file}.sha256"
    trained = data.tokenizer.kind is TokenizerKind.SENTENCEPIECE and is_file(path) and is_file(seal)
    if trained and seal.read_text() == hashlib.sha256(path.read_bytes()).hexdigest():
        return str(path)
    padded = data.corpus.source is CorpusSource.PAIRS  # a trained model reads pairs, and decides the vocabulary
    model = make_tokenizer(data.tokenizer, _training_texts(data, skip_bad), padded).model
    write_atomic(path, model)
    write_atomic(seal, hashlib.sha256(model).hexdigest())
    return str(path)


def _training_texts(data: DataSpec, skip_bad: bool) -> Iterator[str]:
    """The training texts among the first `TRAINING_BYTES` of the corpus."""
    size = 0
    for document in labelled(data.corpus, data.validation_fraction, skip_bad):
        if not document.validation:
            yield document.prompt + document.text
        size += len(document.content)
        if size >= TRAINING_BYTES:
            return
