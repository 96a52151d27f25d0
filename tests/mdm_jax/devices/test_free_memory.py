"""Memory that the process has freed goes back to the system."""

import sys

import pytest

from mdm_jax.devices.free_memory import return_free_memory
from mdm_jax.run.peak_memory import forget_peak_memory, peak_memory_bytes

PIECE, PIECES = 60_000, 3000
"""Small enough for the allocator's heap; 180 MB in all."""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have allocators of other kinds")
def test_freed_pieces_below_a_piece_that_is_held_are_returned() -> None:
    pieces = [bytes([1]) * PIECE for _ in range(PIECES)]
    held = pieces[-1]
    forget_peak_memory()
    full = peak_memory_bytes()
    del pieces
    return_free_memory()
    forget_peak_memory()
    assert peak_memory_bytes() < full - PIECE * PIECES // 2
    assert len(held) == PIECE
