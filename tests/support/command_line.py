"""Commands as a user meets them: refused in one line, or run on a terminal."""

import os
import pty
import signal
import subprocess
from collections.abc import Callable

import pytest


def one_line(main: Callable[[list[str]], int], arguments: list[str], capture: pytest.CaptureFixture[str]) -> str:
    """The line in which the command says why it ends with exit code 1; it says nothing else."""
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(arguments))
    out, said = capture.readouterr()
    assert (stopped.value.code, out) == (1, "")
    assert said.startswith("mdm_jax: ")
    assert said.count("\n") == 1, said
    return said


def on_terminal(start: Callable[..., subprocess.Popen], stop_at: bytes | None = None) -> tuple[int, bytes]:
    """The exit code of a process whose outputs are a terminal, and all that it shows there.

    Args:
        start: starts the process with the `stdout` and the `stderr` that it is given.
        stop_at: once the process has shown this, it gets Ctrl-C; None if it never does.
    """
    outer, inner = pty.openpty()
    process = start(stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    while True:
        try:
            part = os.read(outer, 65536)
        except OSError:  # Linux's end of file of a terminal
            break
        if not part:
            break
        shown += part
        if stop_at is not None and stop_at in shown:
            process.send_signal(signal.SIGINT)
            stop_at = None
    os.close(outer)
    return process.wait(timeout=120), shown
