"""A small made-up corpus and its prepared folder, for tests that need data and not its meaning."""

import json
import random
from pathlib import Path

from mdm_jax.data.prepare import prepare
from mdm_jax.data.sources.pieces import labelled
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec

WORDS = """
a the model loss noise token mask größe λ data step curve of and is falls rises slowly
""".split()  # noqa: SIM905


def texts(count: int, seed: int = 0) -> list[str]:
    """Different documents of 5 to 40 words, some of them with characters of several bytes."""
    draw = random.Random(seed)
    return [f"{i}: " + " ".join(draw.choices(WORDS, k=draw.randint(5, 40))) + ".\n" for i in range(count)]


def write_jsonl(path: Path, documents: list[str]) -> str:
    """The path of a JSONL file that holds the documents."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return str(path)


def data_spec(folder: Path, count: int = 300, **changes) -> DataSpec:
    """The spec of a corpus of `count` documents in `folder`, not prepared yet."""
    path = write_jsonl(folder / "corpus.jsonl", texts(count))
    corpus = CorpusSpec(source=CorpusSource.JSONL, path=path)
    settings = {"seq_len": 16, "validation_fraction": 0.2, "directory": str(folder / "prepared")} | changes
    return DataSpec(corpus=corpus, **settings)


def prepared(folder: Path, count: int = 300, **changes) -> DataSpec:
    """The spec of a corpus that lies prepared in `folder`."""
    data = data_spec(folder, count, **changes)
    prepare(data)
    return data


def flags(data: DataSpec, *more: str) -> list[str]:
    """The command line that prepares what `data_spec` describes."""
    fixed = ["--corpus", "jsonl", "--validation-fraction", "0.2"]
    return [*fixed, "--path", data.corpus.path, "--out", data.directory, *more]


def documents(corpus: CorpusSpec) -> list[str]:
    """The texts of a corpus, of both splits."""
    return [document.text for document in labelled(corpus, DataSpec.validation_fraction)]
