"""One process of several, supervised: when jax aborts it because another one is lost, it still ends with exit code 42.

The coordination service of jax ends every process of a run by SIGABRT, from a thread of its own, once one of them is
lost, and offers no other way. So a small process starts the one that trains, passes signals on to it, and
translates its end. The two never outlive each other: the child reads a pipe whose other end only its parent has open.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from mdm_jax.command import signal_name

PIPE = "MDM_JAX_SUPERVISOR"
"""Environment variable of a supervised process: the number of the file that ends when its supervisor does."""


def is_supervised() -> bool:
    """Whether this process has a supervisor."""
    return PIPE in os.environ


def supervise(arguments: Sequence[str]) -> tuple[int | None, str]:
    """Runs `mdm_jax.main` with these arguments in a process of its own, to its end.

    Returns:
        Its exit code and an empty string; None and the signal's name where a signal has killed it.
    """
    ours, theirs = os.pipe()
    ignored = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    child: subprocess.Popen | None = None
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        asked = signal.SIGTERM if number == signal.SIGHUP else number  # a closed terminal asks it to save and end
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
        start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone, and the child once
    )
    os.close(ours)
    for number in early:
        child.send_signal(number)
    code = child.wait()
    os.close(theirs)
    if code >= 0:
        return code, ""
    if code in (-signal.SIGTERM, -signal.SIGINT):  # before the child could answer them itself
        return 128 - code, ""
    return None, signal_name(-code)


def when_supervisor_ends(leave: Callable[[], None]) -> None:
    """Calls `leave`, from another thread, when this process's supervisor has ended before it."""
    if not is_supervised():
        return

    handle = int(os.environ[PIPE])

    def wait() -> None:
        os.read(handle, 1)
        leave()

    threading.Thread(target=wait, daemon=True).start()
