"""Divides work over processes. Results come in the order of the tasks, and no process outlives the caller."""

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
"""Tasks submitted for each process, so that the next task is ready when one is finished."""


def in_order(function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Generator[Result, None, None]:
    """`function` of each task, in order, computed by up to `jobs` processes.

    Args:
        function: a function at the top level of a module, so that a new process can import it.
        tasks: the arguments of `function`.
        jobs: maximum number of processes; 1 works in this process.

    Raises:
        OSError: a worker process was killed, for example because memory is short.
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
                with _sigint_blocked():
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
            if not finished:  # an error or an interruption, or the caller needs no more results
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Blocks SIGINT inside, and permanently in processes that are started inside."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this process when its parent ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
