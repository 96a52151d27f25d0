"""The processes of one run. If one of them must end early, it tells the others, and they end too.

If a process fails while its peers wait for it in a collective, they wait for ever. So it first writes its exit code and
its reason into the key-value store of jax's coordination service, which every process reads twice a second. A killed
process writes nothing. Then its connections are reset or its heartbeats stop, jax aborts its peers, and `supervised.py`
turns this into an exit code.
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
"""A process without a heartbeat for this time counts as lost. jax's default of 100 s is a long wait for a whole pod."""
BEGIN_SECONDS = 300
LOOK_SECONDS = 0.5
TELL_SECONDS = 6.0
NOTE, READ = "mdm_jax/leaving", "mdm_jax/read"


class Peers:
    """The other processes of the run. If there are none, all methods do nothing."""

    def __init__(self, client: Any = None, index: int = 0) -> None:
        self._client, self._index = client, index

    @property
    def any(self) -> bool:
        """Whether there are other processes."""
        return self._client is not None

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, the only one that locks the run's folder and writes the result."""
        return self._index == 0

    def wait_for_all(self) -> None:
        """Returns when every process has called it.

        Call it before jax looks for devices. That also waits for all processes, but blocks every thread, so that this
        process would not see that a peer leaves.
        """
        if self._client is not None:
            self._client.wait_at_barrier("mdm_jax/begun", BEGIN_SECONDS * 1000)

    def tell(self, code: int, reason: str) -> None:
        """Tells the others to leave with this exit code, and waits until they have read it, at most for 7 seconds."""
        if self._client is not None:
            note = json.dumps({"code": code, "reason": f"process {self._index}: {reason}"})
            thread = threading.Thread(target=self._tell, args=(note,), daemon=True)
            thread.start()
            thread.join(TELL_SECONDS + 1)  # without the service, its calls take minutes

    def _tell(self, note: str) -> None:
        with suppress(jax.errors.JaxRuntimeError):  # another process has written its note, or the service is gone
            self._client.key_value_set(NOTE, note)
        self._wait_until_read()

    def _wait_until_read(self) -> None:
        with suppress(jax.errors.JaxRuntimeError):  # some processes are gone
            self._client.wait_at_barrier(READ, int(TELL_SECONDS * 1000))

    @contextmanager
    def watched(self, leave: Callable[[int, str], None]) -> Iterator[None]:
        """Calls `leave(code, reason)`, from another thread, when another process tells this one to leave."""
        ended = threading.Event()
        thread = threading.Thread(target=self._listen, args=(ended, leave), daemon=True)
        if self._client is not None:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if self._client is not None:
                thread.join(LOOK_SECONDS)  # without the service, its calls take minutes

    def _listen(self, ended: threading.Event, leave: Callable[[int, str], None]) -> None:
        while not ended.wait(LOOK_SECONDS):
            try:
                note = json.loads(self._client.key_value_try_get(NOTE))
            except jax.errors.JaxRuntimeError:  # there is no note
                continue
            self._wait_until_read()
            leave(note["code"], note["reason"])
            return


def join(flags: argparse.Namespace) -> Peers:
    """Joins the other processes, if the flags say that there are any. Call it before jax looks for devices."""
    if not (flags.distributed or flags.coordinator):
        return Peers()
    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM, as `Signals` does
    jax.distributed.initialize(
        flags.coordinator, flags.processes, flags.process_index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
    )
    return Peers(distributed.global_state.client, distributed.global_state.process_id)
