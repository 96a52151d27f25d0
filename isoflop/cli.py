"""What the commands share: one clear line on stderr for what a user can cause, and the exit codes."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_OK = 0
EXIT_BAD = 1
EXIT_DIVERGED = 3
EXIT_RETRYABLE = 42
EXIT_INTERRUPTED = 130
EXIT_PREEMPTED = 143


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit 1, as every other bad input's."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits."""
        print(f"{self.prog}: {message} (--help lists the flags)", file=sys.stderr)
        raise SystemExit(EXIT_BAD)


def exit_code(name: str, command: Callable[[], int]) -> int:
    """The command's exit code; for a user's error or a full disk one line on stderr and 1."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_BAD


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
