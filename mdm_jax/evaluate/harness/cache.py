"""Scores in an SQLite file, so that an evaluation that was stopped goes on, and a repeated one costs nothing.

The key of a score is the SHA-256 of all that decides it: the model's weights and tokenizer, the estimator, the seed,
and the tokens. So one file serves several models and settings, and never answers for another.
"""

import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from mdm_jax.spec.validation import require

WAIT_SECONDS = 60.0
TABLE = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, loglikelihood REAL, se_mc REAL, is_greedy INTEGER)"
FIND = (
    "SELECT loglikelihood, se_mc, is_greedy FROM scores"
    " WHERE key = ? AND typeof(loglikelihood) = 'real' AND typeof(se_mc) = 'real'"
)
"""A damaged row, with text or nothing in place of a number, counts as absent."""


@dataclass(frozen=True)
class Score:
    """The log-likelihood of a target in nats, its Monte Carlo standard error, and whether greedy decoding gives it.

    `is_greedy` is None if nobody asked for it.
    """

    loglikelihood: float
    se_mc: float = 0.0
    is_greedy: bool | None = None


def score_key(*decided_by: object) -> str:
    """SHA-256 (hex) of plain values."""
    return hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()


class ScoreCache:
    """A file of scores. Several processes may use it at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file, or makes it.

        Raises:
            ValueError: the file is not a cache of scores, or is damaged.
            OSError: it cannot be opened or written.
        """
        self.path = os.fspath(path)
        with self._opened() as file:
            file.execute(TABLE)
            file.execute("SELECT key, loglikelihood, se_mc, is_greedy FROM scores LIMIT 1")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, in one transaction. An error of SQLite names the file."""
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT_SECONDS)) as file, file:
                yield file
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: cannot be used as a cache of scores: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: not a cache of scores, or damaged: {error}") from None

    def find(self, keys: list[str]) -> dict[str, Score]:
        """The scores that the file has, by key.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        found: dict[str, Score] = {}
        with self._opened() as file:
            for key in keys:
                row = file.execute(FIND, (key,)).fetchone()
                if row is not None:
                    found[key] = Score(row[0], row[1], None if row[2] is None else bool(row[2]))
        return found

    def add(self, scores: Mapping[str, Score]) -> None:
        """Writes scores by key, all or none.

        Raises:
            ValueError: a score is not finite, or the file is damaged.
            OSError: the disk is full, or the file cannot be written.
        """
        for score in scores.values():
            for name, nats in (("loglikelihood", score.loglikelihood), ("se_mc", score.se_mc)):
                require(math.isfinite(nats), name, nats, "finite to be cached")
        rows = [(key, score.loglikelihood, score.se_mc, score.is_greedy) for key, score in scores.items()]
        with self._opened() as file:
            file.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
