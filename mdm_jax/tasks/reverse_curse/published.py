"""The published statements of the reverse curse: lukasberglund/reversal_curse, experiment 1, which SMDM uses too.

A folder of them, such as `data/reverse_experiments/june_version_7921032488`, has JSONL files of `prompt` and
`completion`. The name of a file says its set: `p2d` puts the person before the description, `d2p` the description
before the person, and `both` does both. `SET_prompts_train` is trained, `SET_prompts_test` asks in the same direction
with other wordings, and `SET_reverse_prompts_test` asks in the other direction. Only `p2d` and `d2p` have the last one.
"""

from collections.abc import Collection

from mdm_jax.files.storage import Path, as_path, is_file
from mdm_jax.spec.validation import require
from mdm_jax.tasks.reverse_curse.facts import Direction, Order, Question, Statement, Wording
from mdm_jax.tasks.reverse_curse.records import objects
from mdm_jax.tasks.reverse_curse.relations import Relation

SETS = {"p2d": Order.FORWARD, "d2p": Order.BACKWARD, "both": Order.BOTH}
TESTS = {"prompts_test": Direction.SAME, "reverse_prompts_test": Direction.REVERSED}


def read_published(folder: str) -> tuple[list[Statement], list[Question]]:
    """The training statements and the questions of a folder.

    Sets without a training file are left out; so are test files that are not there.

    Raises:
        ValueError: the folder has no training or no test file, or a line (named) lacks `prompt` or `completion`.
        OSError: a file cannot be read now.
    """
    root, statements, questions = as_path(folder), list[Statement](), list[Question]()
    for name, order in SETS.items():
        file = root / f"{name}_prompts_train.jsonl"
        if not is_file(file):
            continue
        relation = Relation.PERSON.value
        statements += [Statement(relation, order.value, prompt + answer) for prompt, answer in _pairs(file)]
        tests = {
            test: _pairs(root / f"{name}_{test}.jsonl") for test in TESTS if is_file(root / f"{name}_{test}.jsonl")
        }
        people = {
            " ".join(answer.split()[:2]) for pairs in tests.values() for _, answer in pairs if _begins_with_name(answer)
        }
        for test, pairs in tests.items():
            questions += [_question(*pair, order, TESTS[test], people) for pair in pairs]
    bound = "a folder with files such as p2d_prompts_train.jsonl and p2d_reverse_prompts_test.jsonl"
    require(bool(statements and questions), "published", folder, bound)
    return statements, questions


def _pairs(file: Path) -> list[tuple[str, str]]:
    found = []
    for where, record in objects(str(file)):
        texts = [record.get(field) for field in ("prompt", "completion")]
        fits = all(isinstance(text, str) and text.strip() for text in texts)
        require(fits, where, f"fields {', '.join(record)}"[:80], "an object with texts `prompt` and `completion`")
        found.append((str(texts[0]), str(texts[1])))
    return found


def _question(prompt: str, answer: str, order: Order, direction: Direction, people: Collection[str]) -> Question:
    """The question of a line. Paraphrases about one person are questions about one fact.

    The person is named at the beginning of the answer, of which only the name is kept, or else in the prompt. A prompt
    that names nobody is a fact of its own.
    """
    asks = "backward" if _begins_with_name(answer) else "forward"
    if asks == "backward":
        person = " ".join(answer.split()[:2])
        answer = f" {person}"
    else:
        person = next((name for name in sorted(people) if name in prompt), prompt)
    about = (Relation.PERSON.value, order.value, direction, Wording.HELD_OUT, person)
    return Question(*about, prompt, (answer,), f"person {order.value} {asks}")


def _begins_with_name(answer: str) -> bool:
    """Whether the answer begins with a first and a last name."""
    words = answer.split()[:2]
    return len(words) == 2 and all(word[0].isupper() and word.replace("-", "").isalpha() for word in words)
