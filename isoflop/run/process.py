"""Processes of runs: their share of the cores, their logs, and their ends."""

import abc
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mdm_jax.command import cores_of, on_cores
from mdm_jax.devices.cpu_compiler import with_fast_compiler
from mdm_jax.devices.huge_pages import with_huge_pages
from mdm_jax.files.storage import open_no_link
from mdm_jax.spec import RunSpec

LOG_FILE = "log.txt"
MOST_TAIL_BYTES = 1 << 16
MOST_REASON_LETTERS = 400


@dataclass(eq=False)
class Child:
    """A started run. This attempt begins at byte `log_start` of the log; `slot` numbers its share of the cores."""

    spec: RunSpec
    process: subprocess.Popen
    log: Path
    log_start: int
    slot: int
    poll: Callable[[], int | None]
    """The exit code of the run; None while it is running. A negative code is the signal that killed its process."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self.started

    def terminate(self) -> None:
        """Asks the process to save the run and to end. It ends the processes that it has started."""
        if self.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the process and those that it has started, if any of them is still running."""
        end_group(self.process)

    def last_log_line(self) -> str:
        """The last line that this attempt logged, or an empty string."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - MOST_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        printable = ("".join(c for c in line if c.isprintable()).strip() for line in reversed(lines))
        return next((line[:MOST_REASON_LETTERS] for line in printable if line), "")


def end_group(process: subprocess.Popen) -> None:
    """Kills the process and those that it has started, if any of them is still running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Launcher(abc.ABC):
    """Starts runs, and decides whether the process of an ended run is kept."""

    @abc.abstractmethod
    def start(self, spec: RunSpec, folder: Path, attempt: int, slot: int) -> Child:
        """Starts a run, and appends its output to the log in its folder.

        Raises:
            ValueError: the log is a link.
            OSError: the process cannot be started, or the folder is not writable.
        """

    @abc.abstractmethod
    def release(self, child: Child) -> None:
        """Called once, after the run has ended."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends all processes without a run."""


@dataclass(frozen=True)
class Processes:
    """Starts processes with this environment, on a share of the cores, and with one inherited open file, if any.

    Their large arrays lie on huge pages, and their programs are compiled with the options of `cpu_compiler`.
    """

    environment: Mapping[str, str]
    jobs: int
    inherited: int | None

    def start(
        self,
        command: Sequence[str],
        log: IO[bytes],
        slot: int,
        stdin: int = subprocess.DEVNULL,
        fds: Sequence[int] = (),
    ) -> subprocess.Popen:
        """A process whose output goes to the log.

        Args:
            command: the argument list.
            log: the file for standard output and standard error.
            slot: number of its share of the cores.
            stdin: as in `subprocess.Popen`.
            fds: further open files that the process inherits.

        Raises:
            OSError: the command cannot be executed.
        """
        cores = cores_of(slot, self.jobs)
        with on_cores(cores):
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_thread_settings(len(cores)), **with_fast_compiler(with_huge_pages(self.environment))},
                pass_fds=[*fds, *(() if self.inherited is None else (self.inherited,))],
                start_new_session=True,  # Ctrl-C at the terminal reaches the runner alone
            )


@dataclass(frozen=True)
class ProcessPerRun(Launcher):
    """A launcher that starts a process for each run; `command` gives its argument list."""

    processes: Processes
    command: Callable[[RunSpec], Sequence[str]]

    def start(self, spec: RunSpec, folder: Path, attempt: int, slot: int) -> Child:
        """See `Launcher`."""
        with begun_log(folder, attempt) as log:
            begin = log.tell()  # the process will move the position
            process = self.processes.start(self.command(spec), log, slot)
        return Child(spec, process, folder / LOG_FILE, begin, slot, process.poll)

    def release(self, child: Child) -> None:
        """Ends what the process may have left."""
        child.kill()

    def close(self) -> None:
        """No process is without a run."""


def begun_log(folder: Path, attempt: int) -> IO[bytes]:
    """The log in the run's folder, open for appending, with a line that numbers the attempt.

    Raises:
        ValueError: the log is a link.
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = open_no_link(folder / LOG_FILE, "ab")
    log.write(f"# attempt {attempt}\n".encode())
    log.flush()
    return log


def _thread_settings(cores: int) -> dict[str, str]:
    """Environment variables that limit libraries to the share of cores. The user's own values have precedence."""
    return {"OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": str(cores)} if cores else {}
