"""What commands share: parser, exit codes, one clear line on standard error, forms of flags, hidden packages."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
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


def new_parser(module: str, description: str | None) -> Parser:
    """An empty parser of `python -m module`; its help shows the description as it is written."""
    return Parser(
        module, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def exit_code(command: Callable[[], int]) -> int:
    """The command's exit code; for a user's error, a full disk or Ctrl-C one line on standard error and its code."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, OSError) as error:
        return say(error, BAD)
    except KeyboardInterrupt as stop:
        return say(str(stop) or "interrupted", INTERRUPTED)


def say(message: object, code: int) -> int:
    """The code, after what is message is printed as one line."""
    with suppress(OSError):  # standard error may lie on the disk that is full
        print(f"mdm_jax: {one_line(message)}", file=sys.stderr, flush=True)
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


def one_line(message: object) -> str:
    """The text without line breaks."""
    return " ".join(str(message).split())


def signal_name(number: int) -> str:
    """The name of a signal, "SIGKILL", or its number where the system has no name for it."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def describe_exit(code: int) -> str:
    """`exit 42`, or the name of the signal that killed it."""
    if code >= 0:
        return f"exit {code}"
    name = signal_name(-code)
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


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
