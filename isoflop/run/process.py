"""The process of one run: its share of the cores, its log, and its end."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mdm_jax.command import cores_of, on_cores
from mdm_jax.files.storage import open_no_link
from mdm_jax.spec import RunSpec

LOG_FILE = "log.txt"
MOST_TAIL_BYTES = 1 << 16
MOST_REASON_LETTERS = 400


@dataclass(frozen=True)
class Child:
    """A started run. This attempt begins at byte `log_start` of the log; `slot` numbers its share of the cores."""

    spec: RunSpec
    process: subprocess.Popen
    started: float
    log: Path
    log_start: int
    slot: int

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self.started

    def terminate(self) -> None:
        """Asks the run's own process to save and exit; that process ends its workers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the run and its workers at once, if any of them is still running."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def last_log_line(self) -> str:
        """The last line that this attempt logged, or an empty string."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - MOST_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        printable = ("".join(c for c in line if c.isprintable()).strip() for line in reversed(lines))
        return next((line[:MOST_REASON_LETTERS] for line in printable if line), "")


@dataclass(frozen=True)
class Launcher:
    """Starts runs with this environment, on a share of the cores, and with one inherited open file, if any."""

    environment: Mapping[str, str]
    jobs: int
    inherited: int | None

    def start(self, spec: RunSpec, command: Sequence[str], folder: Path, attempt: int, slot: int) -> Child:
        """Starts a run, and appends its output to the log in its folder.

        Raises:
            ValueError: the log is a link.
            OSError: the command cannot be executed, or the folder is not writable.
        """
        folder.mkdir(parents=True, exist_ok=True)
        cores = cores_of(slot, self.jobs)
        with open_no_link(folder / LOG_FILE, "ab") as log:
            log.write(f"# attempt {attempt}\n".encode())
            log.flush()
            start = log.tell()
            with on_cores(cores):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**_thread_settings(len(cores)), **self.environment},
                    pass_fds=() if self.inherited is None else (self.inherited,),
                    start_new_session=True,  # Ctrl-C at the terminal reaches the runner alone
                )
        return Child(spec, process, time.monotonic(), folder / LOG_FILE, start, slot)


def _thread_settings(cores: int) -> dict[str, str]:
    """Environment variables that limit libraries to the share of cores. The user's own values have precedence."""
    return {"OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": str(cores)} if cores else {}
