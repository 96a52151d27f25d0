"""What a report has to write: its prompts, the length of its texts, and the real texts beside them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from mdm_jax.data.sources.pieces import JSONL_SUFFIXES
from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.files.sealed_json import numbered_lines
from mdm_jax.files.storage import as_path
from mdm_jax.sample.report.texts import REAL, Text
from mdm_jax.spec.validation import require

Prompts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Job:
    """What a report has to write, apart from its settings.

    Attributes:
        tokenizer: its tokens are those of all metrics: the reference's, or the first model's without a reference.
        prompts: tokens of each prompt; text i continues prompt i modulo their number.
        tokens: most new tokens of a text.
        real: real texts, which continue the prompts if these are cut from them; empty if there are none.
        texts: texts of each setting.
        batch: texts that are generated together.
        seed: seed of the first text of each setting; the next ones have the next seeds.
    """

    tokenizer: Tokenizer
    prompts: Prompts
    tokens: int
    real: tuple[Text, ...]
    texts: int
    batch: int
    seed: int


def read_prompts(path: str, encode: Callable[[str], Int[np.ndarray, "_"]]) -> Prompts:
    """The tokens of the prompts of a file: a line of text each, or JSONL with the text `prompt`.

    Raises:
        ValueError: there is none, or a line (named) of JSONL has no text `prompt`.
        OSError: the file cannot be read.
    """
    found = list[tuple[int, ...]]()
    for number, line in numbered_lines(as_path(path).read_bytes()):
        text = _prompt(line) if path.endswith(JSONL_SUFFIXES) else line
        if text is None:
            raise ValueError(f'{path}, line {number}: must be an object with the text "prompt"')
        found.append(tuple(encode(text).tolist()) if text else ())
    require(bool(found), "--prompts", path, "a file with at least one prompt")
    return tuple(found)


def _prompt(line: str) -> str | None:
    try:
        text = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def spread_rows(ids: Integer[np.ndarray, "_"], length: int, count: int) -> Integer[np.ndarray, "count length"]:
    """Rows of a stream of tokens, evenly spread over it.

    Raises:
        ValueError: the stream has fewer rows.
    """
    held = len(ids) // length
    require(
        held >= count, "real text", f"{held} pieces of {length} tokens", f"at least {count}, the texts of a setting"
    )
    return ids[: held * length].reshape(held, length)[np.arange(count) * held // count]


def real_texts(rows_SL: Integer[np.ndarray, "S L"], prompt_tokens: int, tokenizer: Tokenizer) -> Iterator[Text]:
    """Rows of real tokens as a prompt and the text that follows, up to its EOS as in generated text."""
    for i, row_L in enumerate(rows_SL):
        prompt_ids, ids = row_L[:prompt_tokens], row_L[prompt_tokens:]
        ends = np.flatnonzero(ids == tokenizer.eos_id)
        ids, ended = ids[: ends[0]] if len(ends) else ids, len(ends) > 0
        yield Text(
            id=f"real/{i}",
            model=REAL,
            sampler="",
            steps=None,
            prompt=tokenizer.decode(prompt_ids),
            prompt_ids=tuple(prompt_ids.tolist()),
            unit=i,
            text=tokenizer.decode(ids),
            ids=tuple(ids.tolist()),
            ended=ended,
            tokens=len(ids) + ended,
        )
