"""A corpus of general text with the statements mixed in, for `mdm_jax.data.prepare`.

`prepare` keeps one copy of equal documents. So repeated statements come in documents of several statements each, which
are drawn in a new order for every repeat. `prepare` also chooses the validation text, by the hash of each document.
Documents with statements are drawn again until their hash puts them into the training text, so the validation text is
general text only, and the loss does not depend on the facts. General text that its own source splits differently, such
as `pydoc` by package, is kept only where both ways agree.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence

from mdm_jax.data.sources.holdout import in_validation
from mdm_jax.data.sources.pieces import labelled
from mdm_jax.spec import CorpusSpec
from mdm_jax.spec.validation import require

MOST_TRIES = 1000
MOST_STATEMENT_BYTES = 1 << 30


def statement_documents(texts: Sequence[str], repeats: int, per_document: int, fraction: float, seed: int) -> list[str]:
    """Different documents of training text, in which each statement occurs `repeats` times.

    Args:
        texts: the statements.
        repeats: times that each statement occurs.
        per_document: statements of a document, a line each; fewer in the last document of a repeat.
        fraction: share of the validation text that `prepare` will be given.
        seed: seed of the orders.

    Raises:
        ValueError: a number is out of range, or there are too few statements for so many different documents.
    """
    require(1 <= repeats <= 1 << 20, "repeats", repeats, "from 1 to 1048576")
    require(1 <= per_document <= len(texts), "per_document", per_document, f"from 1 to {len(texts)}, all statements")
    size = repeats * sum(len(text.encode()) + 1 for text in texts)
    require(size <= MOST_STATEMENT_BYTES, "repeats: bytes of statements", size, f"at most {MOST_STATEMENT_BYTES}")
    draw, seen, found = random.Random(seed), set[str](), list[str]()
    for _ in range(repeats):
        order = list(texts)
        draw.shuffle(order)
        for start in range(0, len(order), per_document):
            lines = order[start : start + per_document]
            document = _drawn(lines, seen, fraction, draw)
            seen.add(document)
            found.append(document)
    return found


def _drawn(lines: list[str], seen: set[str], fraction: float, draw: random.Random) -> str:
    """The lines in an order that gives a new document of the training text.

    A blank line at the end changes the hash of a document whose orders do not suffice.
    """
    for extra in range(MOST_TRIES):
        draw.shuffle(lines)
        document = "\n".join(lines) + "\n" * (1 + extra // 8)
        if document not in seen and not in_validation(hashlib.sha256(document.encode()).digest(), fraction):
            return document
    raise ValueError(f"per_document = {len(lines)}: must be larger, to give enough different documents")


def general_documents(corpus: CorpusSpec, fraction: float) -> Iterator[str]:
    """The documents of general text that `prepare` will put into the split that their source puts them into.

    Raises:
        ValueError: the corpus is absent or corrupt, or has no text.
    """
    for document in labelled(corpus, fraction):
        if in_validation(document.digest, fraction) == document.validation:
            yield document.text


def mixed(general: Iterable[str], with_statements: Sequence[str], seed: int) -> str:
    """All documents in a random order, as JSONL with a field `text`."""
    documents = [*general, *with_statements]
    random.Random(seed).shuffle(documents)
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
