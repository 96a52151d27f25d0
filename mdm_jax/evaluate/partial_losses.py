"""The losses of an evaluation that is not finished, in the run's folder: the next attempt goes on from them.

The file is one line of JSON (what the losses belong to, and the SHA-256 of the rest) and the losses as float32. One
that is damaged, or belongs to other weights, data or settings, is not there as far as the run is concerned.
"""

import hashlib
import json
import time

import numpy as np

from mdm_jax.files.storage import Path, write_atomic

PARTIAL_FILE = "evaluation.part"
SAVE_SECONDS = 10.0
DTYPE = np.dtype("<f4")


class PartialLosses:
    """The kept losses of one run's final evaluation.

    Args:
        path: of the file.
        belongs_to: a digest of everything that the losses depend on.
        batch: rows that are always kept together.
    """

    def __init__(self, path: Path, belongs_to: str, batch: int) -> None:
        self._path, self._belongs_to, self._batch = path, belongs_to, batch
        self._written = time.monotonic()

    def read(self) -> np.ndarray:
        """The losses, float32, whole batches; empty where none are kept or they cannot be trusted."""
        nothing = np.empty(0, np.float32)
        try:
            head, _, raw = self._path.read_bytes().partition(b"\n")
            trusted = json.loads(head) == self._head(raw)
        except (OSError, ValueError, RecursionError):
            return nothing
        if not trusted or len(raw) % (DTYPE.itemsize * self._batch):
            return nothing
        return np.frombuffer(raw, DTYPE).astype(np.float32)

    def write(self, losses: np.ndarray) -> None:
        """Keeps the losses.

        Raises:
            OSError: no room or no access; what was kept before remains.
        """
        raw = losses.astype(DTYPE).tobytes()
        write_atomic(self._path, json.dumps(self._head(raw)).encode() + b"\n" + raw)
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether losses have not been kept for a while."""
        return time.monotonic() - self._written > SAVE_SECONDS

    def _head(self, raw: bytes) -> dict[str, str]:
        return {"belongs_to": self._belongs_to, "sha256": hashlib.sha256(raw).hexdigest()}
