"""Pairs of a prompt and a response, from JSONL files with one record a line."""

import sys
from collections.abc import Iterator
from typing import Any

from mdm_jax.data.sources.files import Line
from mdm_jax.data.sources.records import Skip, jsonl_records, text_of

PROMPT, RESPONSE = "prompt", "response"


def jsonl_pairs(
    path: str, start: int = 0, stop: int = sys.maxsize, skip: Skip | None = None
) -> Iterator[tuple[str, str]]:
    """The prompt, which may be empty, and the response of the JSON object on each line; see `jsonl_records`.

    Raises:
        ValueError: a line is not JSON, lacks a field, or has a response without text; the message names file and line.
    """
    return jsonl_records(path, _pair, start, stop, skip)


def _pair(record: Any, line: Line) -> tuple[str, str]:
    prompt, response = text_of(record, PROMPT, line), text_of(record, RESPONSE, line)
    if not response.strip():
        raise ValueError(f"{line.where}: the response is empty: give one, or leave the pair out")
    return prompt, response
