"""Statements and questions as JSONL files, one object a line."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from mdm_jax.data.sources.files import Line
from mdm_jax.data.sources.records import jsonl_records
from mdm_jax.files.storage import as_path, is_file
from mdm_jax.spec.validation import build, require
from mdm_jax.tasks.reverse_curse.facts import Question

MOST_BYTES = 64 << 20
MOST_RECORDS = 1 << 18


def jsonl(records: Iterable[Any]) -> str:
    """The dataclasses as JSONL."""
    return "".join(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n" for record in records)


def objects(path: str) -> list[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, each with its file and line for messages. Blank lines are skipped.

    Raises:
        ValueError: there is no such file, it is too large, or a line (named) is not a JSON object.
        OSError: the file cannot be read now.
    """
    file = as_path(path)
    require(is_file(file), "file", path, "an existing JSONL file")
    size = file.stat().length
    require(size <= MOST_BYTES, f"{path}: bytes", size, f"at most {MOST_BYTES}")
    found = []
    for each in jsonl_records(path, _object):
        found.append(each)
        require(len(found) <= MOST_RECORDS, f"{path}: lines", len(found), f"at most {MOST_RECORDS}")
    require(bool(found), f"{path}: lines", 0, "at least one")
    return found


def _object(record: Any, line: Line) -> tuple[str, dict[str, Any]]:
    require(isinstance(record, dict), line.where, type(record).__name__, "a JSON object")
    return line.where, record


def read_questions(path: str) -> list[Question]:
    """The questions of a file that `make` wrote.

    Raises:
        ValueError: a line (named) is not a question, or as for `objects`.
        OSError: the file cannot be read now.
    """
    found = []
    for where, record in objects(path):
        try:
            question = build(Question, record)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}") from None
        require(bool(question.prompt.strip()), f"{where}: prompt", question.prompt, "a text")
        require(_are_texts(question.answers), f"{where}: answers", question.answers, "one or more texts")
        found.append(question)
    return found


def _are_texts(answers: Sequence[str]) -> bool:
    return bool(answers) and all(answer.strip() for answer in answers)
