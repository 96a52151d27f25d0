"""A small corpus of pairs, and its prepared folder: sums of small numbers, and their results."""

import json
from pathlib import Path

from mdm_jax.data.prepare import prepare
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec


def sums(count: int) -> list[dict[str, str]]:
    """Different pairs; the first has no prompt, and the lengths differ."""
    return [
        {"prompt": "", "response": "no question"},
        *({"prompt": f"{i}+{i * i}=", "response": str(i + i * i)} for i in range(count - 1)),
    ]


def write_pairs(path: Path, pairs: list[dict[str, str]]) -> str:
    """The path of a JSONL file that has the pairs."""
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return str(path)


def prepared_pairs(folder: Path, pairs: list[dict[str, str]] | None = None, **changes) -> DataSpec:
    """The spec of pairs that lie prepared in `folder`, with rows of 16 bytes."""
    path = write_pairs(folder / "pairs.jsonl", sums(60) if pairs is None else pairs)
    settings = {"seq_len": 16, "validation_fraction": 0.3, "directory": str(folder / "prepared")} | changes
    data = DataSpec(corpus=CorpusSpec(CorpusSource.PAIRS, path), **settings)
    prepare(data)
    return data
