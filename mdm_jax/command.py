"""Shared by all commands: parser, exit codes, errors in one line, values of flags, tables, and the cores of a job.

It also has a check for hidden packages.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, NoReturn

DONE, BAD, DIVERGED, RETRY, INTERRUPTED, PREEMPTED = 0, 1, 3, 42, 130, 143


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, with exit code 1. Its help shows the command that was typed."""

    def __init__(self, module: str, **settings: Any) -> None:
        """A parser for `python -m module`, or for the console script (such as `mdm-report`) if that was typed."""
        script = PurePath(sys.argv[0]).stem
        prog = script if script.startswith("mdm-") else f"python -m {module}"
        super().__init__(prog=prog, **settings)

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits."""
        raise SystemExit(say(f"{message} (--help lists the flags)", BAD))


def new_parser(module: str, description: str | None) -> Parser:
    """An empty parser for `python -m module`. Its help keeps the line breaks of the description."""
    return Parser(
        module, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def exit_code(command: Callable[[], int]) -> int:
    """The command's exit code; for a user's error, a full disk or Ctrl-C one line on standard error and its code."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        code = DONE
    except (ValueError, OSError) as error:
        code = say(error, BAD)
    except KeyboardInterrupt as stop:
        code = say(str(stop) or "interrupted", INTERRUPTED)
    flush_output()
    return code


def flush_output() -> None:
    """Flushes standard output and error, before the process ends.

    A stream that cannot be written, of a closed terminal or on a full disk, is replaced by the null device. Python
    would flush it again at its end, and then exit with 120 in place of the command's own code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(message: object, code: int) -> int:
    """Prints the message as one line on standard error, and returns the code."""
    with suppress(OSError):  # standard error may be a file on a full disk
        print(f"mdm_jax: {one_line(message)}", file=sys.stderr, flush=True)
    return code


def refuse_hidden(package: str) -> None:
    """Returns if Python finds mdm-jax's own `analysis`, `isoflop` or `experiments`, and not a user's file or folder.

    Raises:
        ValueError: Python finds another package of this name first; the message says what to do.
    """
    found = find_spec(package)
    if found and found.origin and Path(found.origin).parent != Path(__file__).parents[1] / package:
        ways = "rename it, start from another folder, or use the console scripts (mdm-plan, mdm-report, ...)"
        raise ValueError(f"{found.origin} hides the package {package!r} of mdm-jax: {ways}")


def one_line(message: object) -> str:
    """The text without line breaks."""
    return " ".join(str(message).split())


def aligned(table: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    """The lines of a table of cells. Its first row names the columns, and those that `left` names are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    places = [str.ljust if name in left else str.rjust for name in table[0]]
    padded = [[place(cell, n) for place, cell, n in zip(places, line, widths, strict=True)] for line in table]
    return ["  ".join(line).rstrip() for line in padded]


def signal_name(number: int) -> str:
    """The name of a signal, such as "SIGKILL", or its number if it has no name."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def describe_exit(code: int) -> str:
    """`exit 42`, or the name of the signal that killed the process."""
    if code >= 0:
        return f"exit {code}"
    name = signal_name(-code)
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


def comma_list(text: str) -> tuple[str, ...]:
    """The items of `a,b,c`, without blanks around them."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def numbers(text: str) -> tuple[float, ...]:
    """The numbers of `1e18,3e18`.

    Raises:
        argparse.ArgumentTypeError: an item (named) is not a number.
    """
    values = []
    for item in comma_list(text):
        try:
            values.append(float(item))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{item!r}: must be a number, such as 1e18") from None
    return tuple(values)


def cores_of(job: int, jobs: int) -> list[int]:
    """Cores of one of `jobs` jobs; empty if one job has them all, or the system does not list them."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs] or [cores[job % len(cores)]]


@contextmanager
def on_cores(cores: list[int]) -> Iterator[None]:
    """Processes started inside run on these cores. XLA sizes its thread pool by them, so jobs do not compete."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
