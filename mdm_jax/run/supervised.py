"""The supervisor of one process of several, which turns an abort by jax into exit code 42.

When a process of a run is lost, jax's coordination service ends all others by SIGABRT, and this cannot be changed. So a
small supervisor starts the process that trains, passes signals on to it, and translates its end. Neither outlives the
other: the child reads a pipe that closes when its supervisor ends.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from mdm_jax.command import signal_name

PIPE = "MDM_JAX_SUPERVISOR"
"""Environment variable of a supervised process: the file descriptor that closes when its supervisor ends."""


def is_supervised() -> bool:
    """Whether this process has a supervisor."""
    return PIPE in os.environ


def supervise(arguments: Sequence[str]) -> tuple[int | None, str]:
    """Runs `mdm_jax.main` with these arguments in a child process, to its end.

    Returns:
        The exit code and an empty string; or None and the signal's name, if a signal has killed the child.
    """
    ours, theirs = os.pipe()
    ignored = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    child: subprocess.Popen | None = None
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        asked = signal.SIGTERM if number == signal.SIGHUP else number  # a closed terminal means: save and end
        if child is None:
            early.append(asked)
        else:
            child.send_signal(asked)

    for number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - set(ignored):
        signal.signal(number, forward)
    child = subprocess.Popen(
        [sys.executable, "-m", "mdm_jax.main", *arguments],
        env={**os.environ, PIPE: str(ours)},
        pass_fds=(ours,),
        start_new_session=True,  # a terminal's Ctrl-C goes to the supervisor alone, so the child gets it once
    )
    os.close(ours)
    for number in early:
        child.send_signal(number)
    code = child.wait()
    os.close(theirs)
    if code >= 0:
        return code, ""
    if code in (-signal.SIGTERM, -signal.SIGINT):  # the child had no handler yet
        return 128 - code, ""
    return None, signal_name(-code)


def when_supervisor_ends(leave: Callable[[], None]) -> None:
    """Calls `leave`, from another thread, if this process's supervisor ends first."""
    if not is_supervised():
        return

    handle = int(os.environ[PIPE])

    def wait() -> None:
        os.read(handle, 1)
        leave()

    threading.Thread(target=wait, daemon=True).start()
