"""One job at a time in another thread. The main thread gets the job's error, or acts on its end, when it next asks."""

import threading
from collections.abc import Callable


class Background:
    """Runs at most one job. All methods are for one thread, the main one."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._then: Callable[[], None] = lambda: None

    def start(self, job: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        """Starts the job, after the one before has ended.

        Args:
            job: the function to run in the thread.
            then: called in the main thread by the next method that finds the job done, if the job has succeeded.

        Raises:
            Exception: the error of the job before.
        """
        self.wait()

        def run() -> None:
            try:
                job()
            except BaseException as error:
                self._error = error

        self._then = then
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Does what `wait` does if the job has ended; otherwise it returns at once."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Returns when no job is running.

        Raises:
            Exception: the error of the job, once.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error
        self._then()
