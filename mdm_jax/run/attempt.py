"""One attempt at a run: its lock, its signals, its peers, and an exit code for every outcome.

All processes of a run end together by themselves if the run is done, has diverged, or was stopped in training. In all
other cases one process ends alone. It tells its peers, which then end with the same exit code, and does not wait for
them.
"""

import argparse
import os
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NoReturn

from mdm_jax.command import BAD, DIVERGED, DONE, RETRY, flush_output, one_line, say
from mdm_jax.files.faults import may_pass
from mdm_jax.files.layout import PROFILE_FOLDER, RESULT_FILE
from mdm_jax.files.lock import Held, hold_run
from mdm_jax.files.results import Status, read_result, set_aside_unusable
from mdm_jax.files.storage import Path
from mdm_jax.run.supervised import when_supervisor_ends
from mdm_jax.spec import RunSpec
from mdm_jax.train.stop import Phase, Signals

if TYPE_CHECKING:
    from mdm_jax.run.peers import Peers
    from mdm_jax.run.record import Record
    from mdm_jax.train.loop import Watch

LINGER_SECONDS = 0.5
"""Process 0 ends this much later than the others, because its end aborts processes that are connected to it."""
LEFT_AT_ONCE = "asked to stop: the same command goes on from what was saved last"


def code_if_finished(folder: Path) -> int | None:
    """The exit code of a finished run (ok or diverged), for which it prints a line; None for any other run.

    A damaged result is renamed, and the next attempt writes a new one.

    Raises:
        Newer: a newer version of mdm-jax wrote the result.
        OSError: the result cannot be read now.
    """
    set_aside = set_aside_unusable(folder)
    if set_aside:
        say(set_aside, DONE)
    try:
        status = read_result(folder / RESULT_FILE).status
    except (FileNotFoundError, NotADirectoryError):
        return None
    if status not in (Status.OK, Status.DIVERGED):
        return None
    with suppress(OSError):
        print(f"{folder} is finished: see result.json there", file=sys.stderr)
    return DONE if status is Status.OK else DIVERGED


class Attempt:
    """An attempt at the run in `folder`, in one process or as one of several.

    jax is imported late, so that signals are handled and the lock is held before jax takes a device.
    """

    def __init__(self, spec: RunSpec, folder: Path, flags: argparse.Namespace) -> None:
        self._spec, self._folder, self._flags = spec, folder, flags
        self._signals = Signals(self._phase, lambda code: self._leave(code, LEFT_AT_ONCE))
        self._watch: Watch | None = None
        self._peers: Peers | None = None
        self._record: Record | None = None
        self._leaving = threading.Lock()

    def run(self) -> int:
        """Runs to the end and returns the exit code. Every outcome is written to `result.json`, if the disk allows."""
        with self._signals.handled(), ExitStack() as stack:
            when_supervisor_ends(lambda: self._leave(RETRY, "its supervisor was killed"))
            try:
                return self._run(stack)
            except Exception as error:
                return self._record_error(error)

    def _run(self, stack: ExitStack) -> int:
        alone = not (self._flags.distributed or self._flags.coordinator)
        if alone:
            stack.enter_context(hold_run(self._folder, self._say))
            ended = code_if_finished(self._folder)  # the process that held the lock may have finished the run
            if ended is not None:
                return ended
        from mdm_jax.devices.absent_tpu import skip_absent_tpu
        from mdm_jax.run.execute import execute
        from mdm_jax.run.peers import join
        from mdm_jax.run.progress import show_progress
        from mdm_jax.run.record import Record
        from mdm_jax.train.loop import Watch
        from mdm_jax.train.profiler import Profiler

        skip_absent_tpu()
        watch = self._watch = Watch(asked_to_stop=self._signals.asked)
        watch.profiler = Profiler(self._flags.profile, self._folder / PROFILE_FOLDER, lambda line: watch.say(line))
        self._peers = join(self._flags)
        with self._peers.watched(self._peer_left):
            if self._peers.is_first and not alone:
                stack.enter_context(hold_run(self._folder, self._say))
                ended = code_if_finished(self._folder)  # the job that held the lock may have finished the run
                if ended is not None:
                    self._leave(ended, f"{self._folder} is finished")
            self._peers.wait_for_all()
            self._record = Record(self._spec, self._folder)
            with show_progress(self._watch, self._spec.run_id, self._spec.schedule.steps):
                row = execute(self._spec, self._folder, self._record, self._watch)
        loss = f"{row.loss:.4f} nats/token ({row.loss_kind.value})"
        with suppress(OSError):  # result.json has the result anyway
            print(f"{row.run_id}: {loss}, standard error {row.loss_se_mc:.4f} of the draws", flush=True)
        return DONE

    def _phase(self) -> Phase:
        return self._watch.phase if self._watch else Phase.NOTHING_NEW

    def _say(self, line: str) -> None:
        say(line, DONE)

    def _record_error(self, error: Exception) -> int:
        """Records an error, and returns its exit code."""
        from mdm_jax.train.loop import Diverged, Preempted

        if isinstance(error, Diverged):
            return say(error, DIVERGED)
        if isinstance(error, Preempted):
            all_stop_together = self._phase() is Phase.TRAINING
            return say(error, self._signals.code) if all_stop_together else self._end_alone(self._signals.code, error)
        if isinstance(error, Held):
            return self._end_alone(RETRY, error)
        if may_pass(error):
            self._record_reason(Status.RUNNING, f"{type(error).__name__}: {error}")
            return self._end_alone(RETRY, error)
        self._record_reason(Status.FAILED, f"{type(error).__name__}: {error}")
        if isinstance(error, ValueError):
            return self._end_alone(BAD, error)
        with suppress(OSError):  # standard error may be a file on a full disk
            traceback.print_exception(error)
        return self._end_alone(BAD, f"{type(error).__name__}: {error}")

    def _record_reason(self, status: Status, reason: str) -> None:
        """Writes status and reason into the result, unless the disk is full. A run worth a retry stays `running`."""
        if self._record is not None:
            with suppress(OSError):
                self._record.write(status, one_line(reason))

    def _end_alone(self, code: int, reason: object) -> int:
        """The exit code for an end of this process alone. With peers, the process ends here."""
        if self._peers is not None and self._peers.any:
            self._leave(code, reason)
        return say(reason, code)

    def _leave(self, code: int, reason: object) -> NoReturn:
        """Tells the peers to leave, and ends the process at once. Any thread may call it."""
        self._leaving.acquire()
        say(reason, code)
        if self._peers is not None:
            self._peers.tell(code, one_line(reason))
        self._exit(code)

    def _peer_left(self, code: int, reason: str) -> NoReturn:
        """Ends the process because a peer has left. The first process records the reason."""
        self._leaving.acquire()
        if code in (BAD, RETRY):
            self._record_reason(Status.FAILED if code == BAD else Status.RUNNING, reason)
        say(reason, code)
        self._exit(code)

    def _exit(self, code: int) -> NoReturn:
        """Ends the process without its exit handlers, because one of them waits for all peers."""
        if self._record is not None:
            self._record.close()
        if self._watch is not None:
            self._watch.restore_terminal()
        if self._peers is not None and self._peers.any and self._peers.is_first:
            time.sleep(LINGER_SECONDS)
        flush_output()
        os._exit(code)
