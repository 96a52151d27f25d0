"""Guidance on pairs: what it reads, the table's means and errors, and the command."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from golden_models import golden_copies
from smdm_files import write_random, write_uniform

from mdm_jax import load
from mdm_jax.spec import Attention
from mdm_jax.tasks.guidance.__main__ import main
from mdm_jax.tasks.guidance.figure import draw
from mdm_jax.tasks.guidance.measure import (
    Check,
    How,
    Measured,
    Training,
    answers,
    measure,
    room_for_answers,
    scores,
    similarity,
)
from mdm_jax.tasks.guidance.table import Estimate, estimate, lines, runs_csv, shown, to_csv
from mdm_jax.tasks.pairs.pair import TextPair

pytestmark = pytest.mark.usefixtures("compiled_quickly")
PAIRS = [TextPair("ab", "xyz"), TextPair("cd", "uvw"), TextPair("", "u"), TextPair("ef", "xyz")]


@pytest.fixture(scope="module")
def mdm(tmp_path_factory) -> str:
    return str(write_random(tmp_path_factory.mktemp("mdm") / "model", Attention.BIDIRECTIONAL, seq_len=12))


def pairs_file(path: Path, pairs: list[TextPair] = PAIRS) -> str:
    path.write_text("".join(pair.line for pair in pairs))
    return str(path)


def test_an_answer_gets_the_room_of_the_right_one_with_its_end(mdm):
    assert room_for_answers(load(mdm), [*PAIRS, TextPair("a", "größe")]) == [4, 4, 2, 4, 8]
    with pytest.raises(ValueError, match="pair 2: tokens = 13: must be at most 12"):
        room_for_answers(load(mdm), [PAIRS[0], TextPair("a" * 9, "bcd")])


def test_at_scale_minus_one_an_answer_does_not_read_its_prompt(mdm):
    """The guided logits are then u."""
    model, pairs, how = load(mdm), [TextPair(prompt, "xyz") for prompt in ("ab", "cd", "ef", "gh")], How((0.0,), (0.0,))
    assert len(set(answers(model, pairs, [4] * 4, how, 0.0, -1.0))) == 1
    assert len(set(answers(model, pairs, [4] * 4, how, 0.0, 0.0))) > 1


def test_an_answer_does_not_depend_on_the_other_pairs(mdm):
    model, how = load(mdm), How((1.0,), (0.0,), seed=3)
    together = answers(model, PAIRS, [4, 4, 2, 4], how, 1.0, 0.5)
    assert answers(model, PAIRS[1:], [4, 2, 4], dataclasses.replace(how, seed=4), 1.0, 0.5) == together[1:]
    assert together[0] == model.generate("ab", 4, seed=3, sampler="confidence", guidance=0.5)[0].text


def test_scores_are_those_of_each_answer(tmp_path):
    """A model that draws 7 or the end, evenly, answers "7" in a quarter of the cases."""
    model = load(write_uniform(tmp_path / "coin", Attention.BIDIRECTIONAL, [ord("7"), 256], 12))
    pairs, how = [TextPair("ab", "7")] * 64, How((1.0,), (0.0, 3.0), seed=1)
    found = measure(model, "m", pairs, how)
    assert {(one.training, one.temperature) for one in found} == {(Training("m", None, 0), 1.0)}
    assert [one.scale for one in found] == [0.0, 3.0]
    texts = answers(model, pairs, [2] * 64, how, 1.0, 0.0)
    assert set(texts) == {"", "7", "77"}
    assert found[0].exact_P.tolist() == [text == "7" for text in texts]
    assert found[0].near_P.tolist() == [similarity(text, "7") for text in texts]
    assert not found[0].foreign_P.any()
    assert found[0].exact_P.mean() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 64))
    assert found[1].exact_P.tolist() == found[0].exact_P.tolist()  # no prediction depends on the prompt


def test_every_date_that_fits_is_right():
    pairs = [TextPair("a summer day of 1987 = ", "1987-07-03")] * 3
    exact_P, near_P = scores(["1987-08-31", "1987-09-01", "1987-07-03 "], pairs, Check.DATES)
    assert exact_P.tolist() == [1, 0, 0]
    assert near_P.tolist() == [1, 0.9, 10 / 11]
    assert scores(["1987-08-31", "1987-07-03"], pairs[:2], Check.RESPONSE)[0].tolist() == [0, 1]


def test_a_foreign_character_is_one_that_no_response_has(tmp_path):
    model = load(write_uniform(tmp_path / "coin", Attention.BIDIRECTIONAL, b"78", 12))
    pairs = [TextPair("ab", "7"), TextPair("ab", "17")] * 8
    found = measure(model, "m", pairs, How((1.0,), (0.0,)))[0]
    texts = answers(model, pairs, room_for_answers(model, pairs), How((1.0,), (0.0,)), 1.0, 0.0)
    assert found.foreign_P.tolist() == ["8" in text for text in texts]
    assert 0 < found.foreign_P.mean() < 1


def test_similarity_is_one_for_equal_texts_and_falls():
    scores = [similarity(text, "1987-03-03") for text in ("1987-03-03", "1987-03-13", "1987-13-13", "abc", "")]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert scores[3:] == [0, 0]


def measured(name: str, seed: int, scale: float, exact: list[int], drop: float | None = 0.0) -> Measured:
    values = np.array(exact, float)
    return Measured(Training(name, drop, seed), 1.0, scale, values, values / 2, 1 - values)


RUNS = [
    measured("a", 0, 0.0, [1, 0, 0, 0]),
    measured("a", 0, 2.0, [1, 1, 0, 1]),
    measured("a", 1, 0.0, [0, 0, 0, 0]),
    measured("a", 1, 2.0, [0, 1, 0, 0]),
    measured("b", 1, 0.0, [1, 1, 1, 1], 0.25),
]


def test_a_gain_is_paired_over_seeds_and_over_pairs():
    table = lines(RUNS)
    assert [(one.training, one.scale, one.seeds, one.pairs) for one in table] == [
        ("a", 0.0, 2, 4),
        ("a", 2.0, 2, 4),
        ("b", 0.0, 1, 4),
    ]
    gain = table[1].exact_gain
    assert (table[1].exact.mean, gain.mean) == (0.5, 0.375)
    assert gain.se_seeds == pytest.approx(0.125)  # the gains of the seeds are .5 and .25
    per_pair = np.array([0, 1, 0, 0.5])
    assert gain.se_pairs == pytest.approx(per_pair.std(ddof=1) / 2)
    assert table[1].near_gain.mean == gain.mean / 2
    assert (table[1].foreign.mean, table[2].foreign.mean) == (0.5, 0)
    assert table[0].exact_gain == Estimate(0.0, 0.0, 0.0)
    assert math.isnan(table[2].exact.se_seeds)
    assert table[2].exact.se_pairs == 0


def test_errors_are_those_of_the_mean():
    """Over many tables with independent seeds, the standard deviation of the mean is the error over seeds."""
    draw_of = np.random.default_rng(0)
    tables = draw_of.normal(0, 1, (2000, 5, 1)) + 0.01 * draw_of.normal(size=(2000, 5, 8))
    found = [estimate(values_SP) for values_SP in tables]
    spread = np.std([one.mean for one in found])
    assert np.mean([one.se_seeds**2 for one in found]) ** 0.5 == pytest.approx(spread, rel=0.05)
    assert np.mean([one.se_pairs for one in found]) < 0.1 * spread


def test_a_run_that_is_given_twice_is_refused():
    with pytest.raises(ValueError, match="two runs of 'a' have the seed 1"):
        lines([*RUNS, RUNS[2]])


def test_the_tables_hold_every_number():
    table = list(csv.DictReader(to_csv(lines(RUNS)).splitlines()))
    assert (table[1]["training"], table[1]["scale"], float(table[1]["exact_gain_se_seeds"])) == ("a", "2.0", 0.125)
    assert (table[2]["exact_se_seeds"], table[2]["exact"]) == ("", "1.0")
    runs = list(csv.DictReader(runs_csv(RUNS).splitlines()))
    assert [float(run["exact"]) for run in runs] == [0.25, 0.75, 0, 0.25, 1]
    assert float(runs[0]["exact_se"]) == 0.25
    printed = shown(lines(RUNS))
    assert " ".join(printed[2].split()) == "a 1 2 2 0.500 ± 0.250 +0.375 ± 0.125 0.250 ± 0.125 +0.188 ± 0.062 0.500"


def test_the_figure_has_a_line_for_each_training_and_a_panel_for_each_temperature():
    cold = [dataclasses.replace(one, temperature=0.0) for one in RUNS]
    figure = draw(lines([*RUNS, *cold]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["temperature 1", "temperature 0"]
    entries = figure.axes[0].get_legend_handles_labels()[1]
    assert entries == ["a", "b"]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert drawn == [[0.125, 0.5]]


def test_the_command_writes_the_tables_and_takes_every_kind_of_path(mdm, reference_data, tmp_path, capsys):
    load(mdm).export_hf(tmp_path / "hf")
    models = [mdm, str(tmp_path / "hf"), *golden_copies(reference_data, tmp_path, "mdm")]
    words = ["--pairs", pairs_file(tmp_path / "pairs", [PAIRS[0], PAIRS[3]]), "--scales=-1,0", "--temperatures", "0"]
    assert main([*models, *words, "--out", str(tmp_path / "out")]) == 0
    table = list(csv.DictReader((tmp_path / "out" / "guidance.csv").read_text().splitlines()))
    found = {(row["training"], float(row["scale"])): row["near"] for row in table}
    assert list(found) == [(model, w) for model in sorted(models) for w in (-1, 0)]
    assert [found[mdm, w] for w in (-1, 0)] == [found[models[1], w] for w in (-1, 0)]
    assert len((tmp_path / "out" / "runs.csv").read_text().splitlines()) == 7
    assert (tmp_path / "out" / "guidance.svg").read_text().startswith("<?xml")
    assert len(capsys.readouterr().out.splitlines()) == 7


WRONG = [
    (["--scales", "1,2"], "scales = [1.0, 2.0]: must be some with 0 among them"),
    (["--scales", "0,0"], "scales = [0.0, 0.0]: must be one or more numbers, each once"),
    (["--temperatures", "-1"], "temperature = -1.0: must be from 0"),
    (["--scales", "0,inf"], "guidance = inf: must be finite"),
    (["--sampler", "gready"], "sampler = 'gready': must be one of"),
    (["--limit", "0"], "--limit = 0: must be 1 or more"),
    (["--scales", "zero"], "'zero': must be a number"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_said(mdm, tmp_path, words, said, capsys):
    try:
        code = main([mdm, "--pairs", pairs_file(tmp_path / "pairs"), *words])
    except SystemExit as end:
        code = end.code
    assert code == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_arm_and_a_pair_without_a_response_are_refused(mdm, tmp_path, capsys):
    arm = str(write_random(tmp_path / "arm", Attention.CAUSAL, seq_len=12))
    assert main([arm, "--pairs", pairs_file(tmp_path / "pairs")]) == 1
    assert capsys.readouterr().err.endswith("arm: family = 'arm': must be mdm: an ARM has no guidance\n")
    (tmp_path / "bad").write_text(json.dumps({"prompt": "a", "response": ""}))
    assert "bad: line 1: a pair without a response" in one_line(main, [mdm, "--pairs", str(tmp_path / "bad")], capsys)
