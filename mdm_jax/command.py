"""How commands end: exit codes, one clear line on standard error, and the name of a signal that ended a process."""

import argparse
import signal
import sys
from contextlib import suppress
from typing import NoReturn

DONE, BAD, DIVERGED, RETRY, INTERRUPTED, PREEMPTED = 0, 1, 3, 42, 130, 143


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit 1, as every other bad input's."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits."""
        print(f"{self.prog}: {message} (--help lists the flags)", file=sys.stderr)
        raise SystemExit(BAD)


def say(said: object, code: int) -> int:
    """The code, after what is said is printed as one line."""
    with suppress(OSError):  # standard error may lie on the disk that is full
        print(f"mdm_jax: {one_line(said)}", file=sys.stderr, flush=True)
    return code


def one_line(said: object) -> str:
    """The text without line breaks."""
    return " ".join(str(said).split())


def signal_name(number: int) -> str:
    """The name of a signal, "SIGKILL", or its number where the system has no name for it."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def describe_exit(code: int) -> str:
    """`exit 42`, or the name of the signal that killed it."""
    if code >= 0:
        return f"exit {code}"
    name = signal_name(-code)
    return f"{name} (out of memory?)" if name == "SIGKILL" else name
