"""The benchmark of the data pipeline: its corpus is one that a run takes, and its table says what was measured."""

import numpy as np
from tiny_runs import quick_compilation

from benchmarks.data_pipeline import Case, make_corpus, measure, run_spec, table
from mdm_jax.data.corpus import open_corpus
from mdm_jax.spec import ModelSpec

TINY = Case(ModelSpec(n_layers=1, d_model=8, n_heads=1, d_ffn=16), 4, 16, 257, 3, 4)


def test_the_corpus_is_read_back(tmp_path) -> None:
    data = run_spec(TINY, str(tmp_path)).data
    make_corpus(data, 1024)
    expected = np.random.default_rng(0).integers(0, 257, 1024).reshape(-1, 16)
    rows = open_corpus(data).training_rows(64, seed=0).read(0, 0, 64)
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(expected, axis=0))


def test_speeds_ratio_and_waits_are_measured(tmp_path) -> None:
    with quick_compilation():
        found = measure(TINY, tmp_path, 4096)
    assert found["ratio"] * found["step tokens/s"] > 0
    assert abs(found["ratio"] - found["pipeline tokens/s"] / found["step tokens/s"]) < 1e-6 * found["ratio"]
    assert 0 <= found["waited share"] <= 1
    header, row = table({"tiny": found})
    assert header.split("  ")[0] == "model"
    assert row.split()[0] == "tiny"
