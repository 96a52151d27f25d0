"""Workers: processes that execute many runs one after another, one process for each slot of the sweep.

So a slot imports the packages once, and compiles the programs of each shape once. `mdm_jax/run/worker.py` says what a
worker does and when it ends. A run that was tried before gets a new process, because a state of the old process may
have made it fail.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from isoflop.run.process import LOG_FILE, Child, Launcher, Processes, begun_log, end_group
from mdm_jax.run.orders import Answer, Order, read_answer
from mdm_jax.spec import RunSpec

COMMAND = (sys.executable, "-m", "mdm_jax.run.worker")


class Worker:
    """A worker's process, and the pipes for its orders and its answers. It has one order at a time."""

    def __init__(self, process: subprocess.Popen, answers: int) -> None:
        self.process, self._answers = process, answers
        self._received, self._answer = b"", None
        os.set_blocking(answers, False)

    def order(self, order: Order) -> None:
        """Gives the worker its next run."""
        self._received, self._answer = b"", None
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has just died: `poll` says how
            self.process.stdin.write(order.line())
            self.process.stdin.flush()

    def poll(self) -> int | None:
        """The exit code of the run, or of the process if it has ended without an answer. None while the run goes on."""
        ended = self.process.poll()  # first, because it may answer and then end
        answer = self._read()
        return answer.code if answer else ended

    @property
    def is_free(self) -> bool:
        """Whether the worker has answered and takes a further order."""
        answer = self._read()
        return answer is not None and answer.goes_on and self.process.poll() is None

    def end(self) -> None:
        """Ends the process and those that it has started."""
        self.poll()  # keeps the answer
        end_group(self.process)
        self.process.wait()
        os.close(self._answers)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # an order that a dead worker did not read is written once more
            self.process.stdin.close()

    def _read(self) -> Answer | None:
        if self._answer is None:
            with suppress(BlockingIOError):
                self._received += os.read(self._answers, 1 << 12)
            if self._received.endswith(b"\n"):
                self._answer = read_answer(self._received)
        return self._answer


@dataclass(frozen=True)
class Workers(Launcher):
    """A launcher that gives runs to workers.

    Attributes:
        processes: starts the workers.
        arguments: gives the arguments of `mdm_jax.main` for a run.
        command: the argument list of a worker, without the number of its pipe.
        of_slot: the worker of each slot.
    """

    processes: Processes
    arguments: Callable[[RunSpec], Sequence[str]]
    command: Sequence[str] = COMMAND
    of_slot: dict[int, Worker] = field(default_factory=dict, init=False)

    def start(self, spec: RunSpec, folder: Path, attempt: int, slot: int) -> Child:
        """See `Launcher`."""
        with begun_log(folder, attempt) as log:
            begin = log.tell()  # the process will move the position
            worker = self.of_slot.get(slot)
            if worker is not None and (attempt > 1 or not worker.is_free):
                self._end(slot)
                worker = None
            if worker is None:
                worker = self.of_slot[slot] = self._new_worker(log, slot)
        worker.order(Order(tuple(self.arguments(spec)), str(folder.absolute() / LOG_FILE)))
        return Child(spec, worker.process, folder / LOG_FILE, begin, slot, worker.poll)

    def release(self, child: Child) -> None:
        """Keeps the worker if it takes further orders."""
        if not self.of_slot[child.slot].is_free:
            self._end(child.slot)

    def close(self) -> None:
        """Ends all workers."""
        for slot in list(self.of_slot):
            self._end(slot)

    def _new_worker(self, log: IO[bytes], slot: int) -> Worker:
        ours, theirs = os.pipe()
        try:
            process = self.processes.start([*self.command, str(theirs)], log, slot, subprocess.PIPE, [theirs])
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return Worker(process, ours)

    def _end(self, slot: int) -> None:
        self.of_slot.pop(slot).end()
