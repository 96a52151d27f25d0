"""Work that is divided over processes: results come in the order of the tasks, and no process outlives the caller."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 2
"""Tasks handed out for each process: the next one lies ready when one is finished."""


def in_order(function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Generator[Result, None, None]:
    """`function` of each task, in order, computed by up to `jobs` processes; in this process for one.

    Args:
        function: a function of a module, which a new process can import.
        tasks: what is sent to the processes.
        jobs: most processes at a time.

    Raises:
        OSError: a process was ended from outside, as the system does where memory is short.
        Exception: what `function` raised, when its task's turn comes.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        yield from map(function, tasks)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_end_with_parent) as pool:
        handed_out: deque[Future[Result]] = deque()
        finished = False
        try:
            for task in tasks:
                with _interrupts_held_back():
                    handed_out.append(pool.submit(function, task))
                if len(handed_out) >= AHEAD * jobs:
                    yield handed_out.popleft().result()
            while handed_out:
                yield handed_out.popleft().result()
            finished = True
        except BrokenProcessPool:
            message = "a worker process was ended from outside (is memory short?)"
            raise OSError(f"{message}: prepare again with fewer --jobs; finished parts are kept") from None
        finally:
            if not finished:  # an error, an interruption, or the caller has enough
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Holds back the interruption of a terminal, and for good in processes that are started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
