"""The tokenizer of nucleotides, and the reverse complement of their ids.

A, C, G, T and N have the ids 0 to 4, and EOS has 5. Lower case, which marks repeats in genome files, is read as upper
case. U, the T of RNA, is read as T. The other letters of IUPAC's code stand for several nucleotides, and are read as N.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, Integer

from mdm_jax.spec import NUCLEOTIDES, NUCLEOTIDES_VOCAB_SIZE

NUCLEOTIDES_EOS = len(NUCLEOTIDES)
AMBIGUOUS = "RYSWKMBDHV"
"""IUPAC's letters for two or three possible nucleotides."""
UNKNOWN = 0xFF


def _ids_of_bytes() -> Int32[np.ndarray, "256"]:
    """The id of each byte; `UNKNOWN` for a byte that is no nucleotide."""
    ids = np.full(256, UNKNOWN, np.int32)
    meaning = {letter: letter for letter in NUCLEOTIDES} | {"U": "T"} | dict.fromkeys(AMBIGUOUS, "N")
    for letter, plain in meaning.items():
        ids[ord(letter)] = ids[ord(letter.lower())] = NUCLEOTIDES.index(plain)
    return ids


IDS = _ids_of_bytes()
LETTERS = np.frombuffer(NUCLEOTIDES.encode(), np.uint8)
COMPLEMENT = np.array([3, 2, 1, 0, 4, 5], np.int32)
"""The id on the other strand: A and T, C and G change places. N and EOS stay."""


def nucleotide_ids(raw: bytes) -> Int32[np.ndarray, "letters"]:
    """The ids of letters in ASCII; `UNKNOWN` where a byte is no nucleotide."""
    return IDS[np.frombuffer(raw, np.uint8)]


def reverse_complement(ids: Integer[np.ndarray, "tokens"]) -> Integer[np.ndarray, "tokens"]:
    """The other strand, read in its own direction. Applied twice, it gives the ids back.

    EOS separates documents. So the row `x EOS y` becomes `rc(y) EOS rc(x)`, and each document keeps its own letters.
    """
    return COMPLEMENT[ids[::-1]].astype(ids.dtype)


class NucleotideTokenizer:
    """Nucleotides: ids 0 to 4 are A, C, G, T and N, and 5 is EOS."""

    vocab_size = NUCLEOTIDES_VOCAB_SIZE
    eos_id = NUCLEOTIDES_EOS
    hash = hashlib.sha256(f"mdm-jax nucleotides {NUCLEOTIDES}".encode()).hexdigest()
    model = b""
    keeps_text = True

    def encode(self, text: str) -> Int32[np.ndarray, "tokens"]:
        """The ids of a text, without EOS.

        Raises:
            ValueError: a character is no nucleotide; the message has its position.
        """
        ids = nucleotide_ids(text.encode("ascii", "replace"))  # a character that is not ASCII becomes one `?`
        if (unknown := np.flatnonzero(ids == UNKNOWN)).size:
            raise ValueError(not_a_nucleotide(text[unknown[0]], int(unknown[0]) + 1))
        return ids

    def encode_batch(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """The ids of all texts in one array, with EOS after each text; and the number of ids of each text, with EOS.

        Raises:
            ValueError: see `encode`.
        """
        end = np.array([self.eos_id], np.int32)
        ids = [part for text in texts for part in (self.encode(text), end)]
        return np.concatenate(ids or [end[:0]]), np.array([len(text) + 1 for text in texts], np.int64)

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> str:
        """The letters of ids, without EOS."""
        return LETTERS[ids[ids < self.eos_id]].tobytes().decode("ascii")

    def text_bytes(self, ids: Integer[np.ndarray, "tokens"]) -> int:
        """The number of bytes of the ids' text: one for each letter, none for EOS."""
        return int(np.count_nonzero(ids < self.eos_id))


def not_a_nucleotide(letter: str, position: int) -> str:
    """The message about a character at a position, counted from 1."""
    return f"character {position}, {letter!r}: must be a nucleotide ({NUCLEOTIDES}, U or IUPAC's {AMBIGUOUS})"
