"""What the commands share: one clear line on stderr for what a user can cause, and the form of the flags."""

import argparse
import os
import sys
from collections.abc import Callable

from mdm_jax.command import BAD, DONE, Parser


def new_parser(module: str, description: str | None) -> Parser:
    """An empty parser of `python -m module`; its help shows the description as it is written."""
    return Parser(
        module,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def exit_code(name: str, command: Callable[[], int]) -> int:
    """The command's exit code; for a user's error or a full disk one line on stderr and 1."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return BAD


def comma_list(text: str) -> tuple[str, ...]:
    """Items of `a,b,c`, blanks dropped."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def numbers(text: str) -> tuple[float, ...]:
    """Numbers of `1e18,3e18`.

    Raises:
        argparse.ArgumentTypeError: one is not a number; it is named.
    """
    values = []
    for item in comma_list(text):
        try:
            values.append(float(item))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{item!r}: must be a number, such as 1e18") from None
    return tuple(values)
