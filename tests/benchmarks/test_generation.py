"""The benchmarks of generation: their statistics by closed form, and that they run."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from smdm_files import write_both
from tiny_runs import quick_compilation

from benchmarks import cache_quality
from benchmarks.cache_quality import Scored, agreement, quality
from benchmarks.generation import CLOCKS, Size, lines_of, measure
from mdm_jax.spec import Family, ModelSpec


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly() -> Iterator[None]:
    with quick_compilation():
        yield


def random_texts(seed: int, shift: float) -> Scored:
    """Texts of 10 tokens, with a spread of nats that all seeds share."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    nats_T = 20 + shared.normal(size=400) + 0.1 * own.normal(size=400) + shift
    return Scored(nats_T, own.multinomial(10, [0.5, 0.25, 0.25], 400))


def test_nats_and_entropy_and_their_errors_are_those_of_the_texts():
    base, own = random_texts(1, 0.0), random_texts(2, 3.0)
    found = quality(own, base)
    assert found.nats == pytest.approx(own.nats_T.mean() / 10)
    assert found.nats_se == pytest.approx(own.nats_T.std() / 10 / 20, rel=0.1)
    difference_T = (own.nats_T - base.nats_T) / 10
    assert found.more_nats == pytest.approx(difference_T.mean())
    assert found.more_nats_se == pytest.approx(difference_T.std() / 20, rel=0.1)
    assert found.entropy == pytest.approx(1.5 * np.log(2), abs=4 * found.entropy_se)
    p_V = own.counts_TV.sum(0) / own.counts_TV.sum()
    by_text = -(own.counts_TV / 10 * np.log(p_V)).sum(1)  # the first-order change of the entropy with a text
    assert found.entropy_se == pytest.approx(by_text.std() / 20, rel=0.1)
    alone = quality(base, base)
    assert (alone.more_nats, alone.more_nats_se, alone.more_entropy_se) == (0, 0, 0)


def test_agreement_counts_the_positions_of_the_longer_text():
    texts = [(1, 2, 3, 4), (1, 2), (), (5,)]
    base = [(1, 0, 3, 4), (1, 2, 3, 4), (), (6,)]
    shares = np.array([0.75, 0.5, 1.0, 0.0])
    assert agreement(texts, base) == pytest.approx((shares.mean(), shares.std(ddof=1) / 2))


def test_the_speed_of_tiny_models_is_measured():
    model = ModelSpec(n_layers=2, d_model=8, n_heads=2, d_ffn=16, vocab_size=12)
    size = Size(model, length=16, new=4, rows=2, block=4, steps=(2,))
    found = json.loads(json.dumps(measure(size, repeats=3)))
    assert found["size"]["block"] == 4
    for runs in (found["arm"], *found["mdm"].values()):
        for clock in CLOCKS:
            base = np.array(runs["none"][clock]["seconds"])
            for one in (run[clock] for run in runs.values()):
                ratios = base / np.array(one["seconds"])
                assert one["speedup"] == pytest.approx(np.median(ratios))
                assert one["least"] <= one["speedup"] <= one["most"]
    assert [line.split()[0] for line in lines_of(found)] == ["model", "arm", "arm", "mdm", "mdm", "mdm"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[Family, str]:
    return write_both(tmp_path_factory.mktemp("models"), seq_len=32)


@pytest.mark.slow
def test_the_quality_of_a_model_is_a_table(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cache_quality, "STEPS_A_BLOCK", (16,))
    out = tmp_path / "quality.json"
    assert cache_quality.main([files["mdm"], "--reference", files["arm"], "--texts", "3", "--out", str(out)]) == 0
    ((name, rows),) = json.loads(out.read_text())["models"].items()
    assert name == "mdm: 2 layers"
    assert [row["cache"] for row in rows] == ["real", "none", "prefix", "dual"]
    assert (rows[1]["same"], rows[1]["more_nats"], rows[1]["more_nats_se"]) == (1, 0, 0)
    assert all(row["nats_se"] > 0 and row["entropy"] > 0 for row in rows)
    # Nothing follows the only block, so that the two caches keep the same.
    assert rows[2]["same"] == rows[3]["same"] < 1
    assert capsys.readouterr().out.startswith("mdm: 2 layers\nsteps a block")


WRONG = [
    (["mdm", "--texts", "1"], "--texts = 1: must be 2 or more"),
    (["arm"], "an MDM"),
    (["mdm", "--reference", "mdm"], "an ARM"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_one_line(files, words, said, capsys):
    given = ["--reference", files["arm"], *[files.get(word, word) for word in words]]
    assert cache_quality.main(given) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
