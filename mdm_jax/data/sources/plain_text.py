"""Documents from text files, which are cut at blank lines, or into passages without regard to blank lines."""

import codecs
from collections.abc import Iterator

from mdm_jax.data.sources.files import READ_BYTES, not_utf8_message, open_bytes, read_lines, without_mark
from mdm_jax.files.storage import as_path

DOCUMENT_CHARACTERS = 4096
MOST_DOCUMENT_CHARACTERS = 1 << 16
LEAST_PASSAGE, MOST_PASSAGE = 2048, 4096
PASSAGE_ENDS = ("\n", ". ", " ")


def text_documents(path: str) -> Iterator[str]:
    """The documents of a text file: at least 4096 characters each, then cut at the next blank line.

    A short file is one document. Text without blank lines is cut at the first line end after 65536 characters.

    Raises:
        ValueError: the file is corrupt, not UTF-8, or has a line of more than 64 MiB; the message names the place.
    """
    lines, size = [], 0
    for read in read_lines(as_path(path)):
        line = read.text
        lines.append(line)
        size += len(line)
        if size >= MOST_DOCUMENT_CHARACTERS or (size >= DOCUMENT_CHARACTERS and not line.strip()):
            yield "".join(lines).strip("\n")
            lines, size = [], 0
    yield "".join(lines).strip("\n")


def passages(path: str) -> Iterator[str]:
    """A text file, cut into passages of 2048 to 4096 characters: at a line end, else a full stop, else a blank.

    Raises:
        ValueError: the file is corrupt or not UTF-8; the message names the place.
    """
    held = ""
    for text in decoded_text(path):
        held += text
        while len(held) > MOST_PASSAGE:
            end = _passage_end(held)
            yield held[:end].strip("\n")
            held = held[end:]
    yield held.strip("\n")


def _passage_end(text: str) -> int:
    for mark in PASSAGE_ENDS:
        if (place := text.rfind(mark, LEAST_PASSAGE, MOST_PASSAGE)) >= 0:
            return place + len(mark)
    return MOST_PASSAGE


def decoded_text(path: str) -> Iterator[str]:
    """The text of a file, a MiB at a time.

    Raises:
        ValueError: the file is corrupt or not UTF-8; the message names the place.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = 0
    with open_bytes(as_path(path)) as file:
        while True:
            raw = file.read(READ_BYTES)
            kept = len(decoder.getstate()[0])
            try:
                yield without_mark(decoder.decode(raw, final=not raw), start)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: {not_utf8_message(error, start - kept)}") from None
            if not raw:
                return
            start += len(raw)
