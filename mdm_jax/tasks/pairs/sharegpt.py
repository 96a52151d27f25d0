"""ShareGPT conversations: the first thing that a human says, and the model's answer to it.

A record has `conversations`, a list of turns with `from` (human, gpt) and `value`. SMDM (Nie et al. 2024, arXiv
2410.18514) fine-tunes on the first turn alone. Turns before the first human one, such as a system message or the end of
an earlier conversation, are left out.
"""

from collections.abc import Iterator
from typing import Any

from mdm_jax.tasks.pairs.pair import TextPair, checked_pair, framed
from mdm_jax.tasks.pairs.records import BadRecord, Record, as_text, shown

HUMANS = ("human", "user")
MODELS = ("gpt", "chatgpt", "assistant", "bing", "bard")
TEMPLATE = "USER: {prompt} ASSISTANT: "
"""Marks both sides as Vicuna's template does. An ARM sees by it where the prompt ends."""


def sharegpt_pairs(record: Record, template: str = TEMPLATE) -> Iterator[TextPair]:
    """The pair of a conversation.

    Args:
        record: a conversation.
        template: the prompt's frame, with `{prompt}` in place of what the human says.

    Raises:
        BadRecord: `conversations` is no list of turns, or no answer follows the first human turn.
    """
    turns = record.fields.get("conversations")
    if not isinstance(turns, list):
        known = shown(", ".join(record.fields)) or "none"
        raise BadRecord(record.where, f"no list in field 'conversations'; its fields: {known}")
    roles = [_role(turn, record.where) for turn in turns]
    first = next((i for i, role in enumerate(roles) if role in HUMANS), None)
    if first is None:
        raise BadRecord(record.where, "a conversation without a human turn")
    if first + 1 == len(turns) or roles[first + 1] not in MODELS:
        raise BadRecord(record.where, "a pair without a response: no answer follows the first human turn")
    said, answered = (as_text(turn.get("value"), record.where, "field 'value' of a turn") for turn in turns[first:][:2])
    yield checked_pair(framed(template, said), answered, record.where)


def _role(turn: Any, where: str) -> str:
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
        raise BadRecord(where, "a turn without the text field 'from'")
    return turn["from"].strip().lower()
