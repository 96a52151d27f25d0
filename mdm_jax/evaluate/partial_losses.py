"""The losses of an unfinished evaluation, in the run's folder, from which the next attempt goes on.

The file has one line of JSON (a digest of everything that the losses depend on, and the SHA-256 of the rest), and then
the losses as float32. A damaged file is ignored, and so is one of other weights, data or settings.
"""

import hashlib
import json
import time

import numpy as np

from mdm_jax.files.storage import Path, write_atomic
from mdm_jax.spec import EXACT_LIKELIHOODS, Likelihood

PARTIAL_FILE = "evaluation.part"
"""The file of the run's loss; an exact likelihood has its own."""
SAVE_SECONDS = 10.0
DTYPE = np.dtype("<f4")


def partial_file(likelihood: Likelihood) -> str:
    """The name of an exact likelihood's file."""
    return f"evaluation-{likelihood.value}.part"


PARTIAL_FILES = (PARTIAL_FILE, *map(partial_file, EXACT_LIKELIHOODS))


class PartialLosses:
    """The saved losses of one evaluation of a run.

    Args:
        path: path of the file.
        belongs_to: a digest of everything that the losses depend on.
        batch: rows of a batch; only whole batches are saved.
    """

    def __init__(self, path: Path, belongs_to: str, batch: int) -> None:
        self._path, self._belongs_to, self._batch = path, belongs_to, batch
        self._written = time.monotonic()

    def read(self) -> np.ndarray:
        """The losses of whole batches, float32; empty if the file is absent, damaged or of another evaluation."""
        nothing = np.empty(0, np.float32)
        try:
            head, _, raw = self._path.read_bytes().partition(b"\n")
            trusted = json.loads(head) == self._header(raw)
        except (OSError, ValueError, RecursionError):
            return nothing
        if not trusted or len(raw) % (DTYPE.itemsize * self._batch):
            return nothing
        return np.frombuffer(raw, DTYPE).astype(np.float32)

    def write(self, losses: np.ndarray) -> None:
        """Saves the losses.

        Raises:
            OSError: no space or no access; the losses saved before remain.
        """
        raw = losses.astype(DTYPE).tobytes()
        write_atomic(self._path, json.dumps(self._header(raw)).encode() + b"\n" + raw)
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last save is more than `SAVE_SECONDS` ago."""
        return time.monotonic() - self._written > SAVE_SECONDS

    def _header(self, raw: bytes) -> dict[str, str]:
        return {"belongs_to": self._belongs_to, "sha256": hashlib.sha256(raw).hexdigest()}
