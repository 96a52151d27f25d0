"""A prompt with its response, and the line that holds both in a prepared file."""

import json
from dataclasses import dataclass

from mdm_jax.tasks.pairs.records import BadRecord

HOLE = "{prompt}"
"""Stands for the prompt in a template."""


@dataclass(frozen=True)
class TextPair:
    """A prompt, which may be empty, and a response, which is not.

    Attributes:
        prompt: what is given.
        response: what is to be written.
    """

    prompt: str
    response: str

    @property
    def line(self) -> str:
        """The pair as a line of JSON with the fields `prompt` and `response`."""
        return json.dumps({"prompt": self.prompt, "response": self.response}, ensure_ascii=False) + "\n"


def checked_pair(prompt: str, response: str, where: str) -> TextPair:
    """The pair of a record.

    Raises:
        BadRecord: the response is empty or blank.
    """
    if not response.strip():
        raise BadRecord(where, "a pair without a response")
    return TextPair(prompt, response)


def framed(template: str, prompt: str) -> str:
    """The template with the prompt in place of `{prompt}`."""
    return template.replace(HOLE, prompt)
