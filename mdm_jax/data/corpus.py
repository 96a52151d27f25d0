"""Documents of a corpus, in a fixed order and each once: embedded, or files of text, JSONL, Parquet or TFDS."""

import hashlib
from collections.abc import Iterator

from mdm_jax.data.files import jsonl_documents, parquet_documents, text_documents
from mdm_jax.data.pydoc import pydoc_documents
from mdm_jax.data.tfds import tfds_documents
from mdm_jax.spec import CorpusSource, CorpusSpec


def documents(corpus: CorpusSpec) -> Iterator[str]:
    r"""Texts with `\n` line ends, without the empty and the repeated, until `max_bytes` of UTF-8 are given.

    The order is the files' own (sorted by name, then as they lie), so shuffle a corpus that is ordered by topic: the
    final evaluation takes the first tokens of the validation split. `pydoc` is mixed already.

    Raises:
        ValueError: no such file, or one that is corrupt (it is named, with its line), or there is no text at all.
    """
    seen: set[bytes] = set()
    total = 0
    for raw in _source(corpus):
        text = raw.replace("\r\n", "\n").replace("\r", "\n")
        content = text.encode(errors="replace")  # JSON can hold half a surrogate pair, UTF-8 cannot
        digest = hashlib.sha256(content).digest()[:16]
        if not text.strip() or digest in seen:
            continue
        seen.add(digest)
        total += len(content)
        yield content.decode()
        if total >= corpus.max_bytes > 0:
            break
    if not seen:
        where = f" in {corpus.path}" if corpus.path else ""
        raise ValueError(f"corpus {corpus.source.value}: no text{where}")


def _source(corpus: CorpusSpec) -> Iterator[str]:
    match corpus.source:
        case CorpusSource.PYDOC:
            return pydoc_documents()
        case CorpusSource.TEXT:
            return text_documents(corpus.path)
        case CorpusSource.JSONL:
            return jsonl_documents(corpus.path, corpus.text_field)
        case CorpusSource.PARQUET:
            return parquet_documents(corpus.path, corpus.text_field)
        case CorpusSource.TFDS:
            return tfds_documents(corpus.path, corpus.text_field)
