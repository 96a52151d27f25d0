"""Answers in both directions: their scores, ranks, means with errors, and the command that measures them."""

import csv
import dataclasses
import io
import math
import shutil

import numpy as np
import pytest
from command_line import one_line
from json_tokenizers import word_piece
from small_corpus import texts
from smdm_files import write_random

from analysis.figures.style import rendered
from mdm_jax import load
from mdm_jax.spec import Attention, Likelihood
from mdm_jax.tasks.reverse_curse.__main__ import main
from mdm_jax.tasks.reverse_curse.answers import Answer, How, answer_all, compared, distractors, ranked, written
from mdm_jax.tasks.reverse_curse.evaluating import some_of_each
from mdm_jax.tasks.reverse_curse.facts import Direction, Question, Wording, invent, questions
from mdm_jax.tasks.reverse_curse.figure import draw
from mdm_jax.tasks.reverse_curse.records import jsonl
from mdm_jax.tasks.reverse_curse.relations import Relation
from mdm_jax.tasks.reverse_curse.table import DIFFERENCE, Answered, estimate, lines, units

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def question(prompt: str, *answers: str, fact="f", order="forward", direction="same", group="g") -> Question:
    return Question("parent", order, Direction(direction), Wording.TRAINED, fact, prompt, answers, group)


ASKED = [
    question("a", " b.", fact="1"),
    question("bc", " c.", " de.", fact="2"),
    question("c", " b.", fact="1", direction="reversed"),
    question("d", " f.", fact="3", direction="reversed"),
]


@pytest.fixture(scope="module")
def randoms(tmp_path_factory) -> dict[str, str]:
    """A random model of each family, by family."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"mdm": Attention.BIDIRECTIONAL, "arm": Attention.CAUSAL}
    return {name: str(write_random(folder / f"{name}.safetensors", kind, 24)) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def models(randoms):
    return {name: load(path) for name, path in randoms.items()}


def test_exact_match_and_bleu():
    assert compared(" Ann Lee. ", (" Ann Lee",)) == (1, pytest.approx(1))
    assert compared("Ann", (" Bo.", " Ann!")) == (1, pytest.approx(1))
    assert compared("", (" Bo.",)) == (0, 0)
    assert compared(" Ann Lee, of old, smiles.", (" Ann Lee",)) == (1, pytest.approx(1))  # nothing says that it ends
    assert compared(" Ann Leeson", (" Ann Lee",))[0] == 0
    assert compared(" Ann Lee smiles.", (" Ann Lee.",))[0] == 0
    exact, bleu = compared("the keeper of the old bell", ("the keeper of the new bell.",))
    precisions = (5 / 6, 3 / 5, 2 / 4, 1 / 3)
    assert exact == 0
    assert bleu == pytest.approx(math.prod(precisions) ** 0.25)


def test_distractors_are_wrong_answers_of_the_group():
    asked = questions(invent(list(Relation), 6, seed=2))
    groups = {q.group: {answer for other in asked if other.group == q.group for answer in other.answers} for q in asked}
    for q, wrong in zip(asked, distractors(asked, 3, seed=1), strict=True):
        assert len(set(wrong)) == len(wrong) == min(3, len(groups[q.group] - set(q.answers)))
        assert set(wrong) <= groups[q.group] - set(q.answers)
    assert distractors(asked, 3, seed=1) != distractors(asked, 3, seed=2)
    paraphrases = [question("a", " wrote it.", fact="1"), question("b", " writing it.", fact="1"), ASKED[3]]
    assert distractors(paraphrases, 9, seed=0)[:2] == [[" f."], [" f."]]


@pytest.mark.parametrize("family", ["mdm", "arm"])
def test_ranks_compare_the_log_likelihoods_after_the_prompt(models, family):
    model = models[family]

    def nats(prompt: str, answer: str) -> float:
        return model.loglikelihood([(prompt, answer)], Likelihood.LEFT_TO_RIGHT)[0].loglikelihood

    found = ranked(model, ASKED, How(distractors=5))
    for q, (preference, first, chance) in zip(ASKED, found, strict=True):
        wrong = [answer for answer in (" b.", " c.", " de.", " f.") if answer not in q.answers]
        above = [nats(q.prompt, right) > nats(q.prompt, other) for right in q.answers for other in wrong]
        best = max(nats(q.prompt, right) for right in q.answers)
        assert preference == pytest.approx(np.mean(above))
        assert first == all(best > nats(q.prompt, other) for other in wrong)
        assert chance == len(q.answers) / 4
    assert ranked(model, ASKED, How(distractors=0)) == [(None, None, None)] * 4


def test_a_question_without_distractors_has_no_rank(models):
    alone = [*ASKED, question("e", " z.", group="alone")]
    assert [None in rank for rank in ranked(models["arm"], alone, How())] == [False] * 4 + [True]


@pytest.mark.parametrize("family", ["mdm", "arm"])
def test_texts_are_greedy_and_do_not_depend_on_the_other_questions(models, family):
    model, options = models[family], {"sampler": "confidence"} if family == "mdm" else {}
    found = written(model, ASKED, How(tokens=6))
    made = model.generate([q.prompt for q in ASKED], 6, temperature=0.0, **options)
    assert found == [(one.text.splitlines() or [""])[0] for one in made]
    assert written(model, ASKED[::-1], How(tokens=6)) == found[::-1]


def test_the_total_length_and_the_steps_are_those_asked_for(models):
    made = models["mdm"].generate(["bc"], 5, sampler="margin", steps=3, temperature=0.0, guidance=0.8)[0]
    (found,) = written(models["mdm"], ASKED[1:2], How(total=7, sampler="margin", steps=3, guidance=0.8))
    assert found == (made.text.splitlines() or [""])[0]
    assert len(written(models["mdm"], ASKED[:2], How(total=3, steps=32))) == 2  # two rooms, with fewer tokens each


def answered(model: str, family: str, seed: int, *exact: float) -> Answered:
    return Answered(model, family, seed, tuple(Answer("", x, x, None, None, None) for x in map(float, exact)))


def test_means_and_errors_are_over_seeds_and_over_facts():
    """Two questions about fact 1 are averaged first, so they do not count as two facts."""
    asked = [question("a", " b", fact="1"), question("b", " b", fact="1"), question("c", " b", fact="2")]
    runs = [answered("m0", "mdm", 0, 1, 0, 1), answered("m1", "mdm", 1, 0, 0, 1), answered("a1", "arm", 1, 0, 0, 0)]
    found = {(line.who, line.cell.relation, line.cell.wording): line for line in lines(asked, runs)}
    mdm = found["mdm", "all", "all"]
    assert (mdm.seeds, mdm.facts) == (2, 2)
    values_SF = np.array([[0.5, 1], [0, 1]])
    assert mdm.measures["exact"] == estimate(values_SF, np.arange(2))
    one = mdm.measures["exact"]
    assert (one.mean, one.se_seeds, one.se_facts) == (0.625, pytest.approx(0.125), pytest.approx(0.375))
    assert one.se == pytest.approx(math.hypot(0.125, 0.375))
    difference = found[DIFFERENCE, "all", "all"]  # over the only seed that both have
    assert (difference.seeds, difference.measures["exact"].mean) == (1, 0.5)
    assert math.isnan(difference.measures["exact"].se_seeds)
    assert difference.measures["exact"].se == difference.measures["exact"].se_facts == pytest.approx(0.5)
    assert "preference" not in mdm.measures


def test_facts_that_share_a_member_are_one_unit_of_the_error():
    """Repeating every fact within its tree leaves the error as it is; counting the copies as facts would not."""
    facts = ["a / b", "c / d", "d / e", "f / g", "b / h", "c / i"]
    assert [len({*units(facts)[[*some]]}) for some in ((0, 4), (1, 2, 5), (0, 1, 3))] == [1, 1, 3]
    values_F, twice = np.array([[0.0, 1.0, 0.5]]), np.repeat([0, 1, 2], 2)
    once = estimate(values_F, np.arange(3))
    assert once.se_facts == pytest.approx(np.std(values_F, ddof=1) / math.sqrt(3))
    assert estimate(np.repeat(values_F, 2, axis=1), twice).se_facts == pytest.approx(once.se_facts)
    assert estimate(np.repeat(values_F, 2, axis=1), np.arange(6)).se_facts < 0.8 * once.se_facts


def test_facts_trained_in_one_direction_stand_apart_from_those_in_both():
    asked = [question("a", " b", fact="1"), question("b", " b", fact="2", order="both")]
    found = lines(asked, [answered("a", "arm", 0, 1, 0)])
    means = {line.cell.order: line.measures["exact"].mean for line in found if line.cell.relation == "all"}
    assert means == {"one_direction": 1, "forward": 1, "both": 0}


def test_a_fact_without_distractors_counts_in_all_measures_but_ranks():
    asked = [question("a", " b", fact="1"), question("b", " b", fact="2"), question("c", " b", order="both", fact="3")]
    answers = [Answer("", 1.0, 1.0, rank, rank, rank) for rank in (0.25, None, None)]
    found = lines(asked, [Answered("m", "mdm", 0, tuple(answers))])
    measures = {line.cell.order: line.measures for line in found if line.cell.relation == "all"}
    assert (measures["forward"]["exact"].mean, measures["forward"]["preference"].mean) == (1, 0.25)
    assert list(measures["both"]) == ["exact", "bleu"]
    assert rendered(draw(found))["svg"].startswith(b"<?xml")


def test_a_seed_occurs_once_in_a_family():
    with pytest.raises(ValueError, match="m1: seed = 0: must be another seed than that of m0"):
        lines(ASKED[:1], [answered("m0", "mdm", 0, 1), answered("m1", "mdm", 0, 1)])


def test_some_questions_of_each_kind_are_chosen():
    asked = questions(invent([Relation.PARENT], 3, seed=0))
    chosen = some_of_each(asked, 1, seed=5)
    kinds = {(q.fact, q.group, q.direction, q.wording) for q in asked}
    assert len(chosen) == len(kinds) == len({(q.fact, q.group, q.direction, q.wording) for q in chosen})
    assert some_of_each(asked, 0, seed=5) == asked


def test_the_command_writes_answers_means_and_a_figure(randoms, models, tmp_path, capsys):
    (tmp_path / "tests.jsonl").write_text(jsonl(ASKED))
    out = tmp_path / "out"
    words = ["evaluate", randoms["mdm"], randoms["arm"], "--tests", str(tmp_path / "tests.jsonl"), "--out", str(out)]
    assert main([*words, "--tokens", "4"]) == 0
    rows = list(csv.DictReader(io.StringIO((out / "answers.csv").read_text())))
    expected = answer_all(models["arm"], ASKED, How(tokens=4))
    arm = [row for row in rows if row["family"] == "arm"]
    assert [(float(r["exact"]), float(r["preference"])) for r in arm] == [
        (one.exact, pytest.approx(one.preference, abs=1e-5)) for one in expected
    ]
    table = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    preference = {
        row["who"]: float(row["preference"])
        for row in table
        if (row["relation"], row["order"], row["direction"], row["wording"]) == ("all", "forward", "reversed", "all")
    }
    asked_back = [one.preference or 0.0 for one in expected[2:]]
    assert preference["arm"] == pytest.approx(np.mean(asked_back), abs=1e-5)
    assert preference[DIFFERENCE] == pytest.approx(preference["mdm"] - preference["arm"], abs=2e-5)
    assert (out / "reverse_curse.svg").read_text().count("<svg") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("relation  asked ")
    before = {file: file.stat().st_mtime_ns for file in (out / "models").iterdir()}
    assert main([*words, "--tokens", "4"]) == 0  # the answers are kept
    assert capsys.readouterr().out == printed
    assert before == {file: file.stat().st_mtime_ns for file in (out / "models").iterdir()}


def test_two_models_of_one_name_are_refused(tmp_path, monkeypatch, capsys):
    """Their answers would share a file. A path from inside a folder has the folder's name."""
    (tmp_path / "tests.jsonl").write_text(jsonl(ASKED))
    for folder in ("a/mine", "b/mine"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "mine")
    words = ["evaluate", "../../b/mine", ".", "--tests", str(tmp_path / "tests.jsonl"), "--out", str(tmp_path / "out")]
    assert ".: name = 'mine': must be another name than that of ../../b/mine" in one_line(main, words, capsys)


def test_all_kinds_of_paths_are_read(models, reference_data, tmp_path, capsys):
    """Published weights have a tokenizer beside them; a Hugging Face folder brings its own."""
    for name in ("mdm.safetensors", "ar.safetensors", "config.json"):
        shutil.copy(reference_data / "smdm_golden" / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text(word_piece(texts(300), 90))
    models["mdm"].export_hf(tmp_path / "hf")
    asked = [dataclasses.replace(q, prompt="loss", answers=(" noise",)) for q in ASKED]
    (tmp_path / "tests.jsonl").write_text(jsonl([*asked[:3], dataclasses.replace(asked[3], answers=(" data",))]))
    end = ["--tests", str(tmp_path / "tests.jsonl"), "--tokens", "1", "--distractors", "0"]
    end += ["--out", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "mdm.safetensors"), str(tmp_path / "ar.safetensors"), *end]) == 0
    assert main(["evaluate", str(tmp_path / "hf"), *end]) == 0
    assert "mdm - arm" in capsys.readouterr().out


WRONG = [
    (["--tokens", "24"], "tokens of the prompt 'a' = 1: must be at most 0, to leave room for an answer"),
    (["--total", "1"], "tokens of the prompt 'a' = 1: must be at most 0"),
    (["--total", "4", "--tokens", "2"], "--total = 4: must be absent with --tokens"),
    (["--each", "-1"], "--each = -1: must be 0 (all) or more"),
    (["--distractors", "-1"], "--distractors = -1: must be 0 or more"),
    (["--temperature", "-1"], "--temperature = -1.0: must be 0 or more"),
    (["--steps", "0"], "--steps = 0: must be 1 or more"),
    (["--tests", "absent.jsonl"], "file = 'absent.jsonl': must be an existing JSONL file"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_one_line(randoms, tmp_path, words, said, capsys):
    (tmp_path / "tests.jsonl").write_text(jsonl(ASKED))
    start = ["evaluate", randoms["arm"], "--tests", str(tmp_path / "tests.jsonl"), "--out", str(tmp_path / "out")]
    assert said in one_line(main, [*start, *words], capsys)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a"}', "tests.jsonl: line 2: "),
        (jsonl([dataclasses.replace(ASKED[0], answers=())]), "line 2: answers = (): must be one or more texts"),
        (jsonl(ASKED[:1]).replace('"same"', '"sideways"'), "line 2: direction = 'sideways': must be one of same"),
        (jsonl(ASKED[:1]).replace('"prompt"', '"promt"'), "line 2: unknown key promt"),
    ],
)
def test_a_malformed_question_is_named(randoms, tmp_path, line, said, capsys):
    (tmp_path / "tests.jsonl").write_text(jsonl(ASKED[:1]) + line.rstrip("\n") + "\n")
    words = ["evaluate", randoms["arm"], "--tests", str(tmp_path / "tests.jsonl"), "--out", str(tmp_path / "out")]
    assert said in one_line(main, words, capsys)
