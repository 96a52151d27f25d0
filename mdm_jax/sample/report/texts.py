"""The generated texts of a setting as JSONL, a sealed line each, so that a stopped report goes on from them."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdm_jax.files.sealed_json import Damaged, numbered_lines, seal, unseal
from mdm_jax.files.storage import Path, is_file, write_atomic
from mdm_jax.spec.validation import build

SCHEMA = 1


@dataclass(frozen=True)
class Text:
    """A generated text, or a real one (whose `model` is `REAL`).

    Attributes:
        id: names the text in this report; files of nats name texts by it.
        model: the model's label.
        sampler: the sampler and its settings.
        steps: its steps; None if the text decides them.
        prompt: the prompt as text.
        prompt_ids: its tokens by the report's tokenizer.
        unit: texts of one prompt have one unit.
        text: the text without its prompt.
        ids: its tokens by the report's tokenizer, without EOS.
        ended: whether EOS ended the text.
        tokens: tokens that the model wrote, with EOS.
        own_nats: nats of the tokens when they were drawn, under the model itself; None for real text. The name is not
            that of a file of nats, so that the two cannot be taken for each other.
        seed: the text's seed.
        nfe: forward passes.
        batch: number of the text's batch.
        seconds: time of the batch divided by its texts; compilation is not in it.
        compile_seconds: how much longer the first batch of this program took; 0 if it had been compiled before.
    """

    id: str
    model: str
    sampler: str
    steps: int | None
    prompt: str
    prompt_ids: tuple[int, ...]
    unit: int
    text: str
    ids: tuple[int, ...]
    ended: bool
    tokens: int
    own_nats: float | None = None
    seed: int | None = None
    nfe: int = 0
    batch: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0


REAL = "real text"


def key_of(identity: Mapping[str, Any]) -> str:
    """Ten hex digits of the hash of everything that decides the texts of a setting."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def write_texts(file: Path, texts: Sequence[Text]) -> None:
    """Writes the texts, a sealed line each, in one atomic write.

    Raises:
        OSError: no room or no access.
    """
    lines = [seal({"schema_version": SCHEMA, **dataclasses.asdict(text)}) for text in texts]
    write_atomic(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_texts(file: Path, count: int) -> list[Text] | None:
    """The texts of a file, or None if there is none.

    Raises:
        ValueError: a line is damaged, or there are not `count` of them; the message says what to do.
        OSError: the file cannot be read now.
    """
    if not is_file(file):
        return None
    found = list[Text]()
    for number, line in numbered_lines(file.read_bytes()):
        try:
            tree = unseal(line, SCHEMA)
            tree.pop("schema_version", None)
            found.append(build(Text, tree))
        except (Damaged, ValueError) as error:
            raise ValueError(f"{file}, line {number}: {error}; delete the file to write its texts again") from None
    if len(found) != count:
        raise ValueError(f"{file}: {len(found)} texts in place of {count}; delete the file to write its texts again")
    return found
