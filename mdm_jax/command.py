"""What all commands share: exit codes, a parser, one clear line on standard error, packages that a file hides."""

import argparse
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, NoReturn

DONE, BAD, DIVERGED, RETRY, INTERRUPTED, PREEMPTED = 0, 1, 3, 42, 130, 143


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit 1, as every other bad input's. Help shows the name that was typed."""

    def __init__(self, module: str, **settings: Any) -> None:
        """A parser of `python -m module`, or of the console script (`mdm-report`) that was typed in its place."""
        script = PurePath(sys.argv[0]).stem
        prog = script if script.startswith("mdm-") else f"python -m {module}"
        super().__init__(prog=prog, **settings)

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits."""
        raise SystemExit(say(f"{message} (--help lists the flags)", BAD))


def say(said: object, code: int) -> int:
    """The code, after what is said is printed as one line."""
    with suppress(OSError):  # standard error may lie on the disk that is full
        print(f"mdm_jax: {one_line(said)}", file=sys.stderr, flush=True)
    return code


def refuse_hidden(package: str) -> None:
    """Returns if `analysis`, `isoflop` or `experiments` is the package of mdm-jax and not a file or folder of the user.

    Raises:
        ValueError: what lies in the current folder is found first; the way round is named.
    """
    found = find_spec(package)
    if found and found.origin and Path(found.origin).parent != Path(__file__).parents[1] / package:
        ways = "rename it, start from another folder, or use the console scripts (mdm-plan, mdm-report, ...)"
        raise ValueError(f"{found.origin} hides the package {package!r} of mdm-jax: {ways}")


def one_line(said: object) -> str:
    """The text without line breaks."""
    return " ".join(str(said).split())


def signal_name(number: int) -> str:
    """The name of a signal, "SIGKILL", or its number where the system has no name for it."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
