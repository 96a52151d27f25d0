"""How `mdm_jax.main` ends: its exit codes, and one clear line on standard error."""

import sys
from contextlib import suppress

DONE, BAD, DIVERGED, RETRY, INTERRUPTED, PREEMPTED = 0, 1, 3, 42, 130, 143


def say(said: object, code: int) -> int:
    """The code, after what is said is printed as one line."""
    with suppress(OSError):  # standard error may lie on the disk that is full
        print(f"mdm_jax: {one_line(said)}", file=sys.stderr, flush=True)
    return code


def one_line(said: object) -> str:
    """The text without line breaks."""
    return " ".join(str(said).split())
