"""`evaluate`: exact match, BLEU and ranks of answers in the trained and in the reversed direction, for both families.

    python -m mdm_jax.tasks.reverse_curse evaluate runs/reverse --tests data/reverse/tests.jsonl --out reverse
    python -m mdm_jax.tasks.reverse_curse evaluate mdm.safetensors --tests tests.jsonl --out reverse --total 52
      --steps 32 --guidance 0.8            (one command: SMDM's setting)

MODEL is a sweep's folder with all its runs, a run's folder, a safetensors file with its tokenizer beside it, or a
Hugging Face folder. Runs of one family are repetitions, so they must differ in their seed; runs of both families with
the same seed are compared. Neither family is told the answer's length: the text ends at the first EOS or line end.

    exact       the text is a right answer
    BLEU        of the text, by sacrebleu, from 0 to 1
    preference  share of wrong answers that are less likely than the right one; 1/2 without knowledge of the fact
    first       a right answer is the likeliest of all; see the column of its chance

In DIR: models/NAME.json, the answers of each model, which are kept for the next call; answers.csv, a line for each
answer; table.csv, means with standard errors over seeds and facts; reverse_curse.svg.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict

from analysis.figures.style import rendered
from mdm_jax.command import DONE, new_parser, say
from mdm_jax.files.results import csv_text
from mdm_jax.files.storage import Path, as_path, check_writable, make_folder, write_atomic
from mdm_jax.run.program_cache import program_cache
from mdm_jax.sample.samplers import Sampler
from mdm_jax.spec import Likelihood
from mdm_jax.spec.validation import build, require
from mdm_jax.tasks.kept_answers import read_answers, write_answers
from mdm_jax.tasks.model_paths import check_names, model_paths, name_of
from mdm_jax.tasks.reverse_curse.answers import MOST_ROOM, SAMPLER, Answer, How, answer_all
from mdm_jax.tasks.reverse_curse.facts import Question
from mdm_jax.tasks.reverse_curse.figure import draw
from mdm_jax.tasks.reverse_curse.records import read_questions
from mdm_jax.tasks.reverse_curse.table import Answered, lines, shown, to_csv
from mdm_jax.trained.load import load

ANSWERS, TABLE, FIGURE, MODELS_FOLDER = "answers.csv", "table.csv", "reverse_curse.svg", "models"
SCHEMA = 1
"""Part of the keys of kept answers: a new number asks all models again."""


def parser() -> argparse.ArgumentParser:
    """The flags of `evaluate`."""
    flags = new_parser("mdm_jax.tasks.reverse_curse evaluate", __doc__)
    add = flags.add_argument
    add("models", nargs="+", metavar="MODEL", help="a sweep's or a run's folder, or a file or folder of weights")
    add("--tests", required=True, metavar="FILE", help="tests.jsonl of make")
    add("--out", required=True, metavar="DIR", help="folder of the results")
    add("--each", type=int, default=0, metavar="N", help="questions of each fact, direction and wording; 0 takes all")
    add("--tokens", type=int, metavar="N", help=f"room for an answer (default: {MOST_ROOM}, or what the row has)")
    add("--total", type=int, metavar="N", help="tokens of prompt and answer together, in place of --tokens")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (%(default)s)")
    add("--sampler", choices=list(Sampler), default=SAMPLER, help="of an MDM (%(default)s)")
    add("--steps", type=int, metavar="N", help="of an MDM's answer (default: one a token)")
    add("--guidance", type=float, default=0.0, metavar="W", help="of an MDM, in texts and ranks (%(default)s)")
    add("--distractors", type=int, default=9, metavar="N", help="wrong answers to rank with; 0 for none (%(default)s)")
    methods = [method.value for method in Likelihood]
    add("--method", choices=methods, default="left_to_right", help="likelihood of an MDM's ranks (%(default)s)")
    add("--draws", type=int, default=128, metavar="N", help="of the method nelbo (%(default)s)")
    add("--seed", type=int, default=0, help="of texts, distractors and the choice of --each (%(default)s)")
    return flags


def work(flags: argparse.Namespace) -> int:
    """Measures the models, and writes and prints the tables.

    Raises:
        ValueError: a flag or a file is unusable, or the models cannot be compared.
        OSError: a file cannot be read or written now.
    """
    names = ("tokens", "total", "temperature", "sampler", "steps", "guidance", "distractors", "draws", "seed")
    how = How(method=Likelihood(flags.method), **{name: getattr(flags, name) for name in names})
    questions = some_of_each(read_questions(flags.tests), flags.each, flags.seed)
    out = as_path(flags.out)
    make_folder(out)
    check_writable(out / TABLE)
    paths = model_paths(flags.models)
    check_names(paths)
    found = []
    with program_cache(lambda line: print(line, file=sys.stderr)):
        for number, path in enumerate(paths, 1):
            found.append(_answered(path, questions, how, out))
            say(f"{found[-1].model}: {len(questions)} answers ({number} of {len(paths)})", DONE)
    table = lines(questions, found)
    write_atomic(out / ANSWERS, _answers_csv(questions, found))
    write_atomic(out / TABLE, to_csv(table))
    write_atomic(out / FIGURE, rendered(draw(table))["svg"])
    print("\n".join(shown(table)))
    return DONE


def some_of_each(questions: Sequence[Question], most: int, seed: int) -> list[Question]:
    """The questions, with at most so many for each fact, direction, prompt's kind and wording; 0 keeps all.

    Raises:
        ValueError: the number is negative.
    """
    require(most >= 0, "--each", most, "0 (all) or more")
    if not most:
        return list(questions)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, question in enumerate(questions):
        groups.setdefault((question.fact, question.group, question.direction, question.wording), []).append(i)
    draw = random.Random(seed)
    kept = {i for group in groups.values() for i in draw.sample(group, min(most, len(group)))}
    return [question for i, question in enumerate(questions) if i in kept]


def _answered(path: str, questions: Sequence[Question], how: How, out: Path) -> Answered:
    model = load(path)
    decides = json.dumps([SCHEMA, model.fingerprint, asdict(how), [asdict(question) for question in questions]])
    key, file = hashlib.sha256(decides.encode()).hexdigest(), out / MODELS_FOLDER / f"{name_of(path)}.json"
    kept = read_answers(file, key)
    if kept is None:
        answers = answer_all(model, questions, how)
        write_answers(file, key, [asdict(answer) for answer in answers])
    else:
        answers = [build(Answer, answer) for answer in kept]
    seed = 0 if model.run is None else model.run.seed
    return Answered(name_of(path), model.family.value, seed, tuple(answers))


def _answers_csv(questions: Sequence[Question], found: Sequence[Answered]) -> str:
    about = ("model", "family", "seed", "relation", "order", "direction", "wording", "fact", "prompt", "right", "text")
    rows: list[list[object]] = [[*about, "exact", "bleu", "preference", "first", "chance"]]
    for one in found:
        for question, answer in zip(questions, one.answers, strict=True):
            asked = (question.relation, question.order, question.direction.value, question.wording.value, question.fact)
            right = " | ".join(text.strip() for text in question.answers)
            numbers = (answer.exact, answer.bleu, answer.preference, answer.first, answer.chance)
            rounded = (None if number is None else round(number, 5) for number in numbers)
            rows.append([one.model, one.family, one.seed, *asked, question.prompt, right, answer.text, *rounded])
    return csv_text(rows)
