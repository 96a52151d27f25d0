"""Labelled examples: the records of a FASTA file, or the rows of a CSV file.

A FASTA header has its label in a word `label=NAME`, such as `>chr1:100-228 label=coding`. A CSV file has the columns
`sequence` (or `text`) and `label`.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mdm_jax.data.sources.fasta import FASTA_SUFFIXES, fasta_records
from mdm_jax.data.sources.files import endings, open_bytes
from mdm_jax.data.sources.holdout import in_validation
from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.files.storage import as_path, is_file
from mdm_jax.spec.validation import require

LABEL = re.compile(r"(?:^|\s)label=(\S+)")
TEXT_COLUMNS = ("sequence", "text")
MOST_EXAMPLES = 1 << 22
MOST_CLASSES = 256


class Example(NamedTuple):
    """A text, its label, and its line in the file (the line of its header, or the last line of its CSV row)."""

    text: str
    label: str
    line: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded examples.

    Attributes:
        tokens_SL: ids, with 0 as padding.
        length_S: tokens of each row, from 1.
        label_S: numbers of the labels.
        cut: examples that were longer than a row, and lost their end.
    """

    tokens_SL: Int[np.ndarray, "S L"]
    length_S: Int[np.ndarray, "S"]
    label_S: Int[np.ndarray, "S"]
    cut: int

    def __len__(self) -> int:
        return len(self.label_S)

    def take(self, index_B: Int[np.ndarray, "B"]) -> "Rows":
        """The rows of these numbers."""
        return Rows(self.tokens_SL[index_B], self.length_S[index_B], self.label_S[index_B], self.cut)


def read_examples(path: str) -> list[Example]:
    """The examples of a file, in order.

    Raises:
        ValueError: the file is absent, corrupt or broken, an example has no text or no label, or there are more than
            2^22; the message names file and line.
    """
    require(is_file(as_path(path)), "examples", path, "a FASTA file, or a CSV file with columns sequence and label")
    found = list[Example]()
    for example in _fasta_examples(path) if path.endswith(endings(FASTA_SUFFIXES)) else _csv_examples(path):
        found.append(example)
        require(len(found) <= MOST_EXAMPLES, f"{path}: examples", f"over {MOST_EXAMPLES}", f"at most {MOST_EXAMPLES}")
    require(bool(found), f"{path}: examples", 0, "at least one")
    return found


def _fasta_examples(path: str) -> Iterator[Example]:
    for record in fasta_records(path):
        labels = LABEL.findall(record.header)
        if len(labels) != 1:
            raise ValueError(f"{path}: line {record.line}: must have one word label=NAME in the header")
        yield Example(record.letters, labels[0], record.line)


def _csv_examples(path: str) -> Iterator[Example]:
    with open_bytes(as_path(path)) as raw:
        reader = csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig", newline=""), strict=True)
        try:
            column = _text_column(path, reader.fieldnames or ())
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                text, label = row[column], row["label"]
                if None in row or text is None or label is None:
                    raise ValueError(f"{where}: must have as many fields as the first line")
                require(bool(text), f"{where}: {column}", text, "not empty")
                require(bool(label.strip()), f"{where}: label", label, "not empty")
                yield Example(text, label.strip(), reader.line_num)
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.reader.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: after line {reader.line_num}: not UTF-8 ({error.reason})") from None


def _text_column(path: str, columns: Sequence[str]) -> str:
    """The name of the column of texts."""
    held = [name for name in TEXT_COLUMNS if name in columns]
    fine = len(held) == 1 and "label" in columns
    require(fine, f"{path}: columns", ", ".join(columns), f"{' or '.join(TEXT_COLUMNS)}, and label")
    return held[0]


def hold_out(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to train on and to test on. Equal texts are on the same side, whatever their order in the file.

    Args:
        examples: all examples.
        share: expected share of the texts that are tested on.
        seed: chooses them.
    """
    sides: tuple[list[Example], list[Example]] = [], []
    for example in examples:
        digest = hashlib.sha256(f"{seed}/{example.text}".encode(errors="replace")).digest()
        sides[in_validation(digest, share)].append(example)
    return sides


def known_labels(path: str, examples: Sequence[Example]) -> list[str]:
    """The labels of training examples, sorted.

    Raises:
        ValueError: there are fewer than two, or more than 256.
    """
    labels = sorted({example.label for example in examples})
    held = f"all {len(examples)} are {labels[0]!r}" if labels else "none"
    require(len(labels) >= 2, f"{path}: labels to train on", held, "of at least two classes")
    require(len(labels) <= MOST_CLASSES, f"{path}: labels to train on", len(labels), f"at most {MOST_CLASSES}")
    return labels


def encode_examples(
    path: str, examples: Sequence[Example], labels: Sequence[str], tokenizer: Tokenizer, most_tokens: int
) -> Rows:
    """The examples as rows of ids. Examples with more than `most_tokens` lose their end.

    Raises:
        ValueError: a label is not among `labels`, or the tokenizer refuses a text or gives it no token; the message
            names the line.
    """
    number = {label: i for i, label in enumerate(labels)}
    ids, cut = list[np.ndarray](), 0
    for example in examples:
        where = f"{path}: line {example.line}"
        require(example.label in number, f"{where}: label", example.label, f"one to train on: {', '.join(labels)}")
        try:
            encoded = tokenizer.encode(example.text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        require(len(encoded) > 0, f"{where}: tokens", 0, "at least 1")
        cut += len(encoded) > most_tokens
        ids.append(encoded[:most_tokens])
    length_S = np.array([len(row) for row in ids], np.int32)
    tokens_SL = np.zeros((len(ids), int(length_S.max(initial=1))), np.int32)
    for row_L, encoded in zip(tokens_SL, ids, strict=True):
        row_L[: len(encoded)] = encoded
    return Rows(tokens_SL, length_S, np.array([number[example.label] for example in examples], np.int32), cut)


def padded_to(rows: Rows, length: int) -> Rows:
    """The same rows with padding up to a length."""
    missing = length - rows.tokens_SL.shape[1]
    return Rows(np.pad(rows.tokens_SL, ((0, 0), (0, missing))), rows.length_S, rows.label_S, rows.cut)
