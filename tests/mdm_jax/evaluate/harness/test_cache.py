"""The cache of scores gives back what it was given, bit for bit, and nothing else."""

import math
import sqlite3
from contextlib import closing

import pytest

from mdm_jax.evaluate.harness.cache import Score, ScoreCache, score_key

SCORES = {"a": Score(-1 / 3, 1e-17, True), "b": Score(-0.0, 0.25, False), "c": Score(-1e300)}


def test_scores_come_back_bit_for_bit_from_another_opening(tmp_path):
    ScoreCache(tmp_path / "scores").add(SCORES)
    assert ScoreCache(tmp_path / "scores").find(["a", "b", "c", "absent"]) == SCORES
    assert ScoreCache(tmp_path / "another").find(["a"]) == {}


def test_a_second_score_of_a_key_replaces_the_first(tmp_path):
    cache = ScoreCache(tmp_path / "scores")
    cache.add(SCORES)
    cache.add({"a": Score(-2.0)})
    assert cache.find(["a", "c"]) == {"a": Score(-2.0), "c": SCORES["c"]}


def test_a_score_that_is_no_number_is_refused_with_the_scores_beside_it(tmp_path):
    cache = ScoreCache(tmp_path / "scores")
    with pytest.raises(ValueError, match="loglikelihood = nan: must be finite to be cached"):
        cache.add({"a": Score(-1.0), "b": Score(math.nan)})
    assert cache.find(["a", "b"]) == {}


@pytest.mark.parametrize(
    "other", [("w", 0.5, [1, 2]), ("w", 0.5, [12]), ("w", 0.5, [1], [2]), ("w0", 0.5, [1, 2, 3]), ("w", 0, [1, 2, 3])]
)
def test_keys_differ_where_what_they_name_differs(other):
    assert score_key(*other) != score_key("w", 0.5, [1, 2, 3])


def test_a_damaged_row_counts_as_absent_and_a_damaged_file_is_named(tmp_path):
    cache = ScoreCache(tmp_path / "scores")
    cache.add(SCORES)
    with closing(sqlite3.connect(cache.path)) as file, file:
        file.execute("UPDATE scores SET loglikelihood = 'x' WHERE key = 'a'")
        file.execute("UPDATE scores SET se_mc = NULL WHERE key = 'b'")
    assert cache.find([*SCORES]) == {"c": SCORES["c"]}
    (tmp_path / "scores").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    for use in (lambda: cache.find(["a"]), lambda: cache.add(SCORES)):
        with pytest.raises(ValueError, match="scores: not a cache of scores, or damaged"):
            use()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    cache = ScoreCache(tmp_path / "scores")
    with closing(sqlite3.connect(cache.path)) as file, file:
        file.execute("CREATE TRIGGER full BEFORE INSERT ON scores BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(ValueError, match="scores: not a cache of scores, or damaged: full"):
        cache.add(SCORES)


def test_a_file_that_is_no_cache_is_named(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be read as the head of one" * 20)
    with pytest.raises(ValueError, match="text: not a cache of scores, or damaged"):
        ScoreCache(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "tables")) as file, file:
        file.execute("CREATE TABLE scores (name TEXT)")
    with pytest.raises(OSError, match="tables: cannot be used as a cache of scores: no such column: key"):
        ScoreCache(tmp_path / "tables")
    with pytest.raises(OSError, match="cannot be used as a cache of scores: unable to open"):
        ScoreCache(tmp_path / "absent" / "scores")
