"""Scores in an SQLite file, so that an evaluation that was stopped goes on, and a repeated one costs nothing.

The key of a score is the SHA-256 of all that decides it: the model's weights and tokenizer, the estimator, the seed,
and the tokens. So one file serves several models and settings, and never answers for another.
"""

import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from mdm_jax.spec.validation import require

WAIT_SECONDS = 60.0
TABLE = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, loglikelihood REAL, se_mc REAL, is_greedy INTEGER)"


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
        try:
            with closing(self._open()) as file, file:
                file.execute(TABLE)
                file.execute("SELECT key, loglikelihood, se_mc, is_greedy FROM scores LIMIT 1")
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: cannot be opened as a cache of scores: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: not a cache of scores, or damaged: {error}") from None

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=WAIT_SECONDS)

    def find(self, keys: list[str]) -> dict[str, Score]:
        """The scores that the file has, by key."""
        found: dict[str, Score] = {}
        with closing(self._open()) as file:
            for key in keys:
                row = file.execute(
                    "SELECT loglikelihood, se_mc, is_greedy FROM scores WHERE key = ?", (key,)
                ).fetchone()
                if row is not None:
                    found[key] = Score(row[0], row[1], None if row[2] is None else bool(row[2]))
        return found

    def add(self, scores: Mapping[str, Score]) -> None:
        """Writes scores by key, all or none.

        Raises:
            ValueError: a score is not finite.
        """
        for score in scores.values():
            require(math.isfinite(score.loglikelihood), "loglikelihood", score.loglikelihood, "finite to be cached")
        rows = [(key, score.loglikelihood, score.se_mc, score.is_greedy) for key, score in scores.items()]
        with closing(self._open()) as file, file:
            file.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
