"""Requests of lm-evaluation-harness as pairs of a prompt and a target, both token ids, that fit a row of the model.

A text is cut where the harness says so, after the blanks at the end of the context are moved to the continuation. A
text without context follows an EOS, as a document does in training. An ARM without a start token needs none: its rows
begin with EOS already.

A rolling log-likelihood scores each token of a text once, in windows of one row. The first window follows an EOS. Each
later window follows at least `context_tokens` tokens that were scored before; the last window follows as many as fit.
With one token this is the rule of the harness for Hugging Face models.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lm_eval.api.instance import Instance

from mdm_jax.spec.validation import require

SHOWN_CHARACTERS = 40
Place = tuple[str | None, int | None, int]
"""A request's task, document and number within the document."""


def place_of(request: Instance) -> Place:
    """The place of a request, under which its score is kept."""
    return request.task_name, request.doc_id, request.idx


class Pair(NamedTuple):
    """A prompt and the target that is scored after it, as token ids."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.target)


def split_text(context: str, continuation: str) -> tuple[str, str]:
    """The context without the blanks at its end, and the continuation with these blanks before it."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def cut_left(pair: Pair, row_tokens: int, continuation: str) -> Pair:
    """The pair with the last tokens of its prompt that fit a row beside the target.

    Raises:
        ValueError: the target is empty, or longer than a row.
    """
    shown = continuation if len(continuation) <= SHOWN_CHARACTERS else continuation[:SHOWN_CHARACTERS] + "…"
    bound = f"from 1 to {row_tokens}, a row of the model"
    require(1 <= len(pair.target) <= row_tokens, f"tokens of the answer {shown!r}", len(pair.target), bound)
    too_many = max(0, pair.length - row_tokens)
    return Pair(pair.prompt[too_many:], pair.target)


def rolling_windows(ids: Sequence[int], prefix: Sequence[int], row_tokens: int, context_tokens: int) -> list[Pair]:
    """Pairs whose targets are the whole text, each token once.

    Args:
        ids: the text.
        prefix: the prompt of the first window.
        row_tokens: tokens of a row; no pair is longer.
        context_tokens: fewest tokens of the prompt of each later window.

    Raises:
        ValueError: a row has no room for `context_tokens` and one token more.
    """
    bound = f"from 0 to {row_tokens - 1}, less than a row"
    require(0 <= context_tokens < row_tokens, "rolling_context", context_tokens, bound)
    text, room = tuple(ids), row_tokens - len(prefix)
    done = min(room, len(text))
    windows = [Pair(tuple(prefix), text[:done])] if text else []
    while done < len(text):
        end = min(done + row_tokens - context_tokens, len(text))
        windows.append(Pair(text[max(0, end - row_tokens) : done], text[done:end]))
        done = end
    return windows
