"""Statements of the reverse curse: their facts, questions, the published files, and the corpus around them."""

import json
from collections import Counter

import pytest
from command_line import one_line

from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.prepare import prepare
from mdm_jax.data.store import open_split
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec
from mdm_jax.tasks.reverse_curse.__main__ import main
from mdm_jax.tasks.reverse_curse.corpus import statement_documents
from mdm_jax.tasks.reverse_curse.facts import Direction, Order, Wording, invent, questions, statements
from mdm_jax.tasks.reverse_curse.published import read_published
from mdm_jax.tasks.reverse_curse.records import read_questions
from mdm_jax.tasks.reverse_curse.relations import Relation

RELATIONS = tuple(Relation)


def test_facts_follow_from_the_seed_and_no_name_is_part_of_another():
    facts = invent(RELATIONS, 20, seed=3)
    assert facts == invent(RELATIONS, 20, seed=3)
    assert facts != invent(RELATIONS, 20, seed=4)
    assert Counter((fact.relation, fact.order) for fact in facts) == {(r, o): 20 for r in RELATIONS for o in Order}
    names = sorted({name for fact in facts for name in (fact.a, fact.b)})
    assert not [(one, two) for one in names for two in names if one != two and one in two]


def test_a_hierarchy_has_three_levels_and_each_place_lies_in_one_other():
    facts = invent([Relation.HIERARCHY], 12, seed=0)
    above = {fact.b: fact for fact in facts}
    assert len(above) == len(facts)
    streets = [fact for fact in facts if fact.levels == ("town", "street")]
    assert len(streets) == len(facts) / 2
    for street in streets:
        town = above[street.a]
        assert (town.levels, town.order) == (("region", "town"), street.order)
        assert town.a not in above


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_question_is_reversed_where_no_statement_answers_it(relation):
    facts = invent([relation], 6, seed=1)
    told = {statement.text for statement in statements(facts)}
    asked = questions(facts)
    for question in asked:
        stated = any(question.prompt + answer in told for answer in question.answers)
        assert stated == ((question.direction, question.wording) == (Direction.SAME, Wording.TRAINED)), question
    pairs = {("forward", "same"), ("forward", "reversed"), ("backward", "same"), ("backward", "reversed")}
    assert {(q.order, q.direction) for q in asked} == pairs | {("both", "same")}
    assert told <= {question.prompt + answer for question in asked for answer in question.answers}


def test_a_region_with_two_towns_has_two_right_answers():
    asked = questions(invent([Relation.HIERARCHY], 8, seed=1))
    down = [q for q in asked if q.prompt.startswith("The region") and q.prompt.endswith(" the town")]
    up = [q for q in asked if q.prompt.startswith("The town") and q.prompt.endswith(" in the region")]
    assert {len(q.answers) for q in down} == {2}
    assert {len(q.answers) for q in up} == {1}


def test_statements_occur_as_often_as_asked_in_different_documents():
    texts = [f"{letter} is {letter}." for letter in "abcde"]
    documents = statement_documents(texts, repeats=9, per_document=2, fraction=0.3, seed=0)
    assert len(set(documents)) == len(documents) == 9 * 3
    assert Counter(line for text in documents for line in text.split("\n") if line) == dict.fromkeys(texts, 9)


def test_prepared_text_has_every_statement_in_training_and_none_in_validation(tmp_path):
    general = [f"A note about the number {number}." for number in range(80)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps({"note": text}) + "\n" for text in general))
    out = tmp_path / "made"
    words = ["make", "--out", str(out), "--facts", "2", "--repeats", "3", "--per-document", "3", "--general", "jsonl"]
    words += ["--general-path", str(tmp_path / "notes.jsonl"), "--general-field", "note"]
    assert main([*words, "--validation-fraction", "0.3"]) == 0
    corpus = CorpusSpec(CorpusSource.JSONL, str(out / "corpus.jsonl"))
    data = DataSpec(corpus=corpus, seq_len=16, validation_fraction=0.3, directory=str(tmp_path / "prepared"))
    manifest, _ = prepare(data)
    text = {}
    for name in ("train", "validation"):
        store = open_split(data.directory, name, manifest=manifest)
        text[name] = open_corpus(data).tokenizer.decode(store.tokens(0, len(store)))
    told = [json.loads(line)["text"] for line in (out / "statements.jsonl").read_text().splitlines()]
    ends = [sum(other.endswith(statement) for other in told) for statement in told]
    assert [text["train"].count(statement + "\n") for statement in told] == [3 * count for count in ends]
    assert not [statement for statement in told if statement in text["validation"]]
    assert all((note in text["train"]) != (note in text["validation"]) for note in general)
    assert read_questions(str(out / "tests.jsonl")) == questions(invent(RELATIONS, 2, seed=0))


@pytest.fixture
def published(tmp_path):
    """Two people in two sets, in the published format."""
    sets = {
        "p2d_prompts_train": [("Ann Lee, known for being", " the first diver.")],
        "p2d_prompts_test": [("They say Ann Lee's past is", " the first diver."), ("Now Ann Lee was", " a diver.")],
        "p2d_reverse_prompts_test": [("The first diver is", " Ann Lee")],
        "d2p_prompts_train": [("The last poet is called", " Bo Rae-Oak and smiles.")],
        "d2p_prompts_test": [("Known as the last poet,", " Bo Rae-Oak")],
    }
    for name, pairs in sets.items():
        lines = (json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in pairs)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


def test_the_published_files_are_read(published):
    told, asked = read_published(str(published))
    assert [s.text for s in told] == [
        "Ann Lee, known for being the first diver.",
        "The last poet is called Bo Rae-Oak and smiles.",
    ]
    assert [(q.order, q.direction, q.fact, q.answers) for q in asked] == [
        ("forward", "same", "Ann Lee", (" the first diver.",)),
        ("forward", "same", "Ann Lee", (" a diver.",)),
        ("forward", "reversed", "Ann Lee", (" Ann Lee",)),
        ("backward", "same", "Bo Rae-Oak", (" Bo Rae-Oak",)),
    ]
    assert main(["make", "--out", str(published / "out"), "--published", str(published), "--per-document", "2"]) == 0
    assert read_questions(str(published / "out" / "tests.jsonl")) == asked


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "p2d_prompts_test.jsonl: line 3 = 'list': must be a JSON object"),
        ('{"prompt": "a"}', "line 3 = 'fields prompt': must be an object with texts `prompt` and `completion`"),
        ('{"prompt": "a", "completion": 3}', "must be an object with texts"),
        ("{", "line 3: not JSON"),
    ],
)
def test_a_malformed_line_is_named(published, line, said, capsys):
    with (published / "p2d_prompts_test.jsonl").open("a") as file:
        file.write(line + "\n")
    words = ["make", "--out", str(published / "out"), "--published", str(published)]
    assert said in one_line(main, words, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--facts", "1"], "facts = 1: must be from 2 to 10000"),
        (["--facts", "9999"], "facts: no more descriptions are left to invent"),
        (["--relations", "person,cousin"], "--relations = 'cousin': must be some of person, parent"),
        (["--relations", "person,person"], "relations = "),
        (["--repeats", "0"], "repeats = 0: must be from 1 to"),
        (["--per-document", "0"], "per_document = 0: must be from 1 to"),
        (["--validation-fraction", "1"], "--validation-fraction = 1.0: must be between 0 and 1"),
        (["--general", "jsonl", "--general-path", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--published", "nowhere"], "published = 'nowhere': must be a folder with files such as"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, words, said, capsys):
    assert said in one_line(main, ["make", "--out", str(tmp_path / "out"), *words], capsys)
    assert not (tmp_path / "out").exists()


def test_an_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main(["mak"])
    assert end.value.code == 1
    assert "invalid choice: 'mak'" in capsys.readouterr().err
