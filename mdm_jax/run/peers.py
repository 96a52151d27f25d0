"""The processes of one run: they join, and one that must leave before the end tells the others, who leave with it.

A process that raises while its peers wait for it in a collective would leave them hanging. So it writes its exit code
and its reason into the key-value store of jax's coordination service, at which every process looks twice a second. A
process that is killed writes nothing: its peers see a connection reset, or its heartbeats stop, and jax then aborts
them, which `supervised.py` turns into an exit code.
"""

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax._src import distributed

HEARTBEAT_SECONDS = 20
"""After so long without a heartbeat a process is taken for lost; jax's own 100 s are a long wait for a pod."""
BEGIN_SECONDS = 300
LOOK_SECONDS = 0.5
TELL_SECONDS = 6.0
NOTE, READ = "mdm_jax/leaving", "mdm_jax/read"


class Peers:
    """The other processes of the run; there may be none, and then nothing is told and nothing heard."""

    def __init__(self, client: Any = None, index: int = 0) -> None:
        self._client, self._index = client, index

    @property
    def any(self) -> bool:
        """Whether there are others."""
        return self._client is not None

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which alone writes and holds the run's folder."""
        return self._index == 0

    def wait_for_all(self) -> None:
        """Returns when every process is here.

        Before the devices are looked for: there jax waits for the peers so that no other thread runs, and nobody
        hears of one that leaves.
        """
        if self._client is not None:
            self._client.wait_at_barrier("mdm_jax/begun", BEGIN_SECONDS * 1000)

    def tell(self, code: int, reason: str) -> None:
        """Tells the others to leave with this exit code, and waits for a moment until they have read it."""
        if self._client is not None:
            note = json.dumps({"code": code, "reason": f"process {self._index}: {reason}"})
            thread = threading.Thread(target=self._tell, args=(note,), daemon=True)
            thread.start()
            thread.join(TELL_SECONDS + 1)  # the service may be gone, and its calls then take minutes

    def _tell(self, note: str) -> None:
        with suppress(jax.errors.JaxRuntimeError):  # another process was first, or the service is gone
            self._client.key_value_set(NOTE, note)
        self._wait_until_read()

    def _wait_until_read(self) -> None:
        with suppress(jax.errors.JaxRuntimeError):  # some are gone
            self._client.wait_at_barrier(READ, int(TELL_SECONDS * 1000))

    @contextmanager
    def watched(self, leave: Callable[[int, str], None]) -> Iterator[None]:
        """Calls `leave(code, reason)`, from another thread, once another process has told that it leaves."""
        ended = threading.Event()
        thread = threading.Thread(target=self._listen, args=(ended, leave), daemon=True)
        if self._client is not None:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if self._client is not None:
                thread.join(LOOK_SECONDS)  # the service may be gone, and its calls then take minutes

    def _listen(self, ended: threading.Event, leave: Callable[[int, str], None]) -> None:
        while not ended.wait(LOOK_SECONDS):
            try:
                note = json.loads(self._client.key_value_try_get(NOTE))
            except jax.errors.JaxRuntimeError:  # no such note
                continue
            self._wait_until_read()
            leave(note["code"], note["reason"])
            return


def join(flags: argparse.Namespace) -> Peers:
    """Joins the other processes that the flags speak of, before anything asks jax for devices."""
    if not (flags.distributed or flags.coordinator):
        return Peers()
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which is answered here
    jax.distributed.initialize(
        flags.coordinator, flags.processes, flags.process_index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
    )
    return Peers(distributed.global_state.client, distributed.global_state.process_id)
