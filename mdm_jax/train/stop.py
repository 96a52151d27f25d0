"""Signals of a run: SIGTERM and SIGINT make it save and end, or end at once if nothing would be lost.

Python runs a signal's handler in the main thread, between two bytecodes. During a compilation or while the main thread
waits for a device, the handler does not run. So another thread reads the signals from the wake-up file descriptor. It
gives the main thread a time that depends on the phase of the run, and then ends the process itself.
"""

import enum
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ASKING = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 0.1
ONE_INTERRUPT_SECONDS = 0.3
"""SIGINTs within this time count as one: a process may get the same signal from a scheduler and from a supervisor."""


class Phase(enum.Enum):
    """The phase of a run. The value is the seconds that the main thread has after a signal to end by itself."""

    NOTHING_NEW = 0.0
    """Data, compilation, initialisation or restoring: the newest checkpoint has everything."""
    EVALUATING = 4.0
    """Training is finished and saved. The main thread saves the losses so far as soon as the device answers."""
    TRAINING = math.inf
    """There are steps since the newest checkpoint, or a half-written checkpoint. The main thread saves first."""


class Signals:
    """The signals of a run. `number` is the first signal that asked it to stop, 0 before that.

    Args:
        phase: returns the present phase of the run.
        leave: ends the process with the given exit code; called from another thread.
    """

    def __init__(self, phase: Callable[[], Phase], leave: Callable[[int], None]) -> None:
        self._phase, self._leave = phase, leave
        self.number = 0
        self._since, self._interrupts, self._interrupted = 0.0, 0, -math.inf

    @property
    def code(self) -> int:
        """Exit code after the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGTERM)

    def asked(self) -> bool:
        """Whether the run was asked to stop."""
        return self.number != 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles SIGTERM and SIGINT inside, except a signal that the process was started to ignore.

        A second SIGINT ends the process at once.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        handlers_before = {n: signal.getsignal(n) for n in ASKING if signal.getsignal(n) is not signal.SIG_IGN}
        file_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in handlers_before:
            signal.signal(number, lambda number, frame: None)
        thread = threading.Thread(target=self._listen, args=(read_end,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            for number, handler in handlers_before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(file_before)
            os.close(write_end)
            thread.join()
            os.close(read_end)

    def _listen(self, read_end: int) -> None:
        while True:
            ready, _, _ = select.select([read_end], [], [], LOOK_SECONDS if self.number else None)
            if ready:
                number = os.read(read_end, 1)
                if not number:
                    return
                with suppress(ValueError):
                    self._receive(signal.Signals(number[0]))
            if self._interrupts > 1 or (self.number and time.monotonic() - self._since >= self._phase().value):
                self._leave(self.code)
                return

    def _receive(self, number: signal.Signals) -> None:
        if number not in ASKING:
            return
        now = time.monotonic()
        if number is signal.SIGINT and now - self._interrupted > ONE_INTERRUPT_SECONDS:
            self._interrupts, self._interrupted = self._interrupts + 1, now
        if not self.number:
            self.number, self._since = int(number), now
