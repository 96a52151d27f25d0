"""Word problems answered by models: what counts as right, intervals, and the command."""

import json
import math
from pathlib import Path

import pytest
from command_line import one_line
from golden_models import golden_copies
from smdm_files import write_random, write_uniform

from mdm_jax import load
from mdm_jax.spec import Attention
from mdm_jax.tasks.gsm8k.__main__ import main, read_problems
from mdm_jax.tasks.gsm8k.answers import Answer, Settings, accuracy, answers, difference

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW = 64
NUMBERS = ("77.0", "7", "$77", "1,000")
KINDS = {"mdm": Attention.BIDIRECTIONAL, "arm": Attention.CAUSAL}


@pytest.fixture(scope="module")
def sevens(tmp_path_factory) -> dict[str, str]:
    """Models that write nothing but 7."""
    folder = tmp_path_factory.mktemp("sevens")
    return {name: str(write_uniform(folder / name, kind, b"7", ROW)) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def randoms(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("randoms")
    return {name: str(write_random(folder / name, kind, ROW)) for name, kind in KINDS.items()}


def problems_file(path: Path, *numbers: str, question: str = "2+2?") -> str:
    records = [{"question": question, "answer": f"Add.\n#### {number}"} for number in numbers]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("family", KINDS)
def test_the_number_of_the_second_stage_is_compared_as_a_number(sevens, tmp_path, family):
    problems = read_problems(problems_file(tmp_path / "a", *NUMBERS))
    settings = Settings(True, 3, 2, {"temperature": 0.0})
    found = answers(load(sevens[family]), problems, settings)
    assert [answer.right for answer in found] == [True, False, True, False]
    assert {(answer.text, answer.number, answer.fits, answer.nfe) for answer in found} == {("777\n77", "77", True, 5)}
    assert [answer.reference for answer in found] == ["77", "7", "77", "1000"]


def test_a_solution_without_the_mark_is_wrong(sevens, tmp_path):
    problems = read_problems(problems_file(tmp_path / "a", "77", *NUMBERS[1:]))
    found = answers(load(sevens["arm"]), problems, Settings(False, 2, 1, {"temperature": 0.0}))
    assert (found[0].text, found[0].number, found[0].right) == ("77", None, False)
    assert (accuracy(found).without_number, accuracy(found).too_long) == (4, 0)


def test_the_steps_of_the_second_stage_are_at_most_its_tokens(sevens, tmp_path):
    problems = read_problems(problems_file(tmp_path / "a", "77"))
    options = {"temperature": 0.0, "sampler": "confidence", "steps": 3, "guidance": 0.5}
    found = answers(load(sevens["mdm"]), problems, Settings(True, 6, 2, options))
    assert (found[0].right, found[0].nfe) == (True, 2 * (3 + 2))


def test_without_a_number_of_tokens_the_rest_of_the_row_is_written(sevens, tmp_path):
    """A prompt of `Question: ?\nAnswer: ` has 20 tokens; steps are at most the tokens that are left."""
    path = tmp_path / "a"
    records = [{"question": question, "answer": "#### 3"} for question in ("?", "?" * 41, "?" * 45, "?")]
    path.write_text("\n".join(map(json.dumps, records)))
    options = {"temperature": 0.0, "sampler": "confidence", "steps": 9}
    found = answers(load(sevens["mdm"]), read_problems(str(path)), Settings(False, None, None, options))
    assert [(len(answer.text), answer.nfe) for answer in found] == [(44, 9), (4, 4), (0, 0), (44, 9)]
    assert [answer.fits for answer in found] == [True, True, False, True]


def test_a_rationale_that_leaves_no_room_for_the_number_makes_the_answer_wrong(sevens, tmp_path):
    problems = read_problems(problems_file(tmp_path / "a", *NUMBERS))
    found = answers(load(sevens["mdm"]), problems, Settings(True, 32, 2, {"temperature": 0.0}))
    assert [(answer.fits, answer.right, answer.number) for answer in found] == [(False, False, None)] * 4


@pytest.mark.parametrize(("family", "two_stages"), [("mdm", True), ("arm", False)])
def test_an_answer_does_not_depend_on_the_other_problems(randoms, tmp_path, family, two_stages):
    model = load(randoms[family])
    questions = ("1+1?", "b" * 200, "2?")
    records = [json.dumps({"question": question, "answer": "#### 3"}) for question in questions]
    (tmp_path / "a").write_text("\n".join(records))
    problems, options = read_problems(str(tmp_path / "a")), {"temperature": 1.0}
    together = answers(model, problems, Settings(two_stages, 3, 2, options, seed=5))
    assert [answer.fits for answer in together] == [True, False, True]
    assert not together[1].right
    if not two_stages:
        assert answers(model, problems[2:], Settings(False, 3, 2, options, seed=7)) == together[2:]
    others = [problems[0], problems[0], problems[2]]
    assert answers(model, others, Settings(two_stages, 3, 2, options, seed=5))[2] == together[2]


def an_answer(right: bool) -> Answer:
    return Answer("q", "1", "", "1" if right else "2", right, True, 1)


@pytest.mark.parametrize(("right", "wrong"), [(0, 5), (3, 7), (50, 0), (1, 0)])
def test_the_interval_is_wilsons(right, wrong):
    n, z = right + wrong, 1.959963984540054
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    found = accuracy([an_answer(True)] * right + [an_answer(False)] * wrong)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert (found.share, found.right, found.problems) == (share, right, n)


def test_a_difference_is_over_the_same_problems():
    one, two = [an_answer(right) for right in (True, True, False, True)], [an_answer(False)] * 4
    assert difference(one, two) == pytest.approx((0.75, 0.25))
    assert difference(one, one) == (0, 0)
    assert math.isnan(difference(one[:1], two[:1])[1])


def test_the_table_has_both_families_and_the_file_all_answers(sevens, tmp_path, capsys):
    path, out = problems_file(tmp_path / "a", *NUMBERS), tmp_path / "out.jsonl"
    words = [sevens["mdm"], sevens["arm"], path, "--two-stage", "--tokens", "3", "--number-tokens", "2"]
    assert main([*words, "--temperature", "0", "--out", str(out)]) == 0
    head, mdm, arm = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["model", "family", "problems", "right", "accuracy"]
    assert mdm.split()[1:] == ["mdm", "4", "2", "0.5000", "0.1500", "to", "0.8500", "0", "0"]
    assert arm.split()[1:] == ["arm", *mdm.split()[2:], "+0.0000", "±", "0.0000"]
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(record["model"], record["number"], record["right"]) for record in records] == [
        (path, "77", right) for path in (sevens["mdm"], sevens["arm"]) for right in (True, False) * 2
    ]


def test_all_kinds_of_paths_are_read(randoms, reference_data, tmp_path, capsys):
    """Published weights have a tokenizer beside them; a Hugging Face folder brings its own."""
    golden = golden_copies(reference_data, tmp_path, "mdm", "ar")
    load(randoms["mdm"]).export_hf(tmp_path / "hf")
    path = problems_file(tmp_path / "a", "4", "5", question="2")
    assert main([*golden, path, "--tokens", "4"]) == 0
    assert main([str(tmp_path / "hf"), path, "--tokens", "3", "--steps", "3", "--guidance", "1"]) == 0
    families = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert families == ["family", "mdm", "arm", "family", "mdm"]


WRONG = [
    ("arm", ["--guidance", ".5"], "guidance = 0.5: must be 0 for an ARM"),
    ("arm", ["--steps", "4"], "steps = 4: must be absent for an ARM"),
    ("mdm", ["--steps", "9", "--tokens", "4"], "steps = 9: must be at most 4"),
    ("mdm", ["--tokens", "45"], "tokens = 45: must be at most 41, so that the shortest problem fits"),
    ("mdm", ["--tokens", "0"], "tokens = 0: must be 1 or more"),
    ("mdm", ["--sampler", "gready"], "sampler = 'gready': must be one of"),
    ("mdm", ["--limit", "0"], "--limit = 0: must be 1 or more"),
    ("mdm", ["--seed", "-1"], "seed = -1"),
]


@pytest.mark.parametrize(("family", "words", "said"), WRONG)
def test_a_mistake_is_one_line(randoms, tmp_path, family, words, said, capsys):
    path = problems_file(tmp_path / "a", "4")
    assert said in one_line(main, [randoms[family], path, *words], capsys)


def test_bad_problems_are_named_or_left_out(sevens, tmp_path, capsys):
    path = tmp_path / "a"
    path.write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    said = f"{path}: line 1: the answer does not end in '#### ' and a number"
    assert said in one_line(main, [sevens["arm"], str(path)], capsys)
    assert main([sevens["arm"], str(path), "--skip-bad"]) == 1
    assert capsys.readouterr().err == f"skipped: {said}\nmdm_jax: {path}: no problems\n"
