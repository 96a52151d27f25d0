"""Blocks of consecutive documents: the parts of a corpus over which the sampling error is estimated.

A row of tokens may hold several short documents, and two models cut their rows at different places. A block is the same
text for all models, and much longer than a row, so that the nats of different blocks are nearly independent and a
difference of two models can be taken block by block.
"""

import numpy as np
from jaxtyping import Float64, Int64

from mdm_jax.evaluate.stream import RowNats

MOST_BLOCKS = 256
ROWS_A_BLOCK = 4
"""A block has at least as much text as this number of rows, so that few rows belong to two blocks."""


def block_ends(bytes_D: Int64[np.ndarray, "D"], longest_row_bytes: float) -> Int64[np.ndarray, "G"]:
    """The number of documents up to the end of each block; the last is the number of all documents.

    Blocks have whole documents. At most 256 blocks divide the corpus, and each has the text of at least 4 rows. What is
    left at the end joins the last block.

    Args:
        bytes_D: UTF-8 bytes of each document.
        longest_row_bytes: mean bytes of a row of the model with the longest rows.
    """
    least = max(ROWS_A_BLOCK * longest_row_bytes, int(bytes_D.sum()) / MOST_BLOCKS)
    ends, held = list[int](), 0
    for number, size in enumerate(bytes_D.tolist(), start=1):
        held += size
        if held >= least:
            ends.append(number)
            held = 0
    if not ends:
        return np.array([len(bytes_D)], np.int64)
    return np.array([*ends[:-1], len(bytes_D)], np.int64)


def sums_of_blocks(x_D: Int64[np.ndarray, "D"], ends_G: Int64[np.ndarray, "G"]) -> Int64[np.ndarray, "G"]:
    """The sum of `x` over the documents of each block."""
    return np.diff(np.append(0, x_D.cumsum())[ends_G], prepend=0)


def nats_of_blocks(
    rows: RowNats, tokens_D: Int64[np.ndarray, "D"], ends_G: Int64[np.ndarray, "G"]
) -> Float64[np.ndarray, "R G"]:
    """The nats of each block in each draw. They add up to the nats of all rows.

    A row in two blocks gives each its share of the row's tokens.
    """
    token_ends_G, row_ends_S = tokens_D.cumsum()[ends_G - 1], rows.tokens_S.cumsum()
    nats_RS = np.concatenate([np.zeros((len(rows.nats_RS), 1)), rows.nats_RS.cumsum(1)], 1)
    known_S = np.append(0, row_ends_S)
    upto_RG = np.stack([np.interp(token_ends_G, known_S, nats_S) for nats_S in nats_RS])
    return np.diff(upto_RG, prepend=0.0)
