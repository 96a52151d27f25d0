"""A run's row of the run table during the run: the cost of earlier attempts, new measurements, and `result.json`."""

import importlib.metadata
import pathlib
import subprocess
import threading
import time
from typing import Any

import jax

from mdm_jax.devices.accelerators import peak_flops_per_second
from mdm_jax.files.layout import RESULT_FILE
from mdm_jax.files.results import RunResult, Status, read_result, result_of, write_result
from mdm_jax.files.storage import Path, refuse_link
from mdm_jax.run.peak_memory import peak_memory_bytes
from mdm_jax.spec import FlopConvention, RunSpec
from mdm_jax.spec.counting import step_flops
from mdm_jax.train.loop import Watch

REPORTED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Record:
    """The run's row during the run, and the only writer of `result.json` in this process."""

    def __init__(self, spec: RunSpec, folder: Path):
        """Reads the result of earlier attempts.

        Raises:
            ValueError: the run's folder is a link.
            OSError: an earlier result cannot be read now.
        """
        refuse_link(folder)
        self._spec, self._folder, self._started = spec, folder, time.monotonic()
        self._writing, self._ended = threading.Lock(), False
        self._known: dict[str, Any] = {"versions": _versions(), "git_sha": _git_sha()}
        before = self._earlier_row()
        self._known["attempts"] = 1 + (before.attempts if before else 0)
        self.data_hash_before = before.data_hash if before else ""
        self._known["data_hash"] = self.data_hash_before
        self._seconds_before = (before.wall_seconds if before else None) or 0.0
        self._in_steps = self._in_steps_before = self._seconds_before * ((before.goodput if before else None) or 0.0)
        self._known["mfu"] = self._mfu_before = before.mfu if before else None

    def _earlier_row(self) -> RunResult | None:
        try:
            return read_result(self._folder / RESULT_FILE)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    @property
    def attempts(self) -> int:
        """The number of attempts so far, including this one."""
        return self._known["attempts"]

    @property
    def seconds(self) -> float:
        """Wall time of all attempts; a killed attempt counts until its last checkpoint."""
        return self._seconds_before + time.monotonic() - self._started

    def add_cost(self, watch: Watch) -> None:
        """Adds the columns of the cost until the last checkpoint, over all attempts."""
        self._in_steps = self._in_steps_before + watch.seconds_in_steps
        self.add_columns(peak_memory_bytes=_peak_memory_bytes())
        peak = peak_flops_per_second(self._known["device"])
        if peak is not None and self._in_steps > 0:
            timed = watch.steps_timed * step_flops(self._spec, FlopConvention.EXACT)
            at_peak = timed / (peak * self._spec.hardware.devices)
            before = self._in_steps_before * (self._mfu_before or 0.0)
            self.add_columns(mfu=round((before + at_peak) / self._in_steps, 6))

    def add_columns(self, **columns: Any) -> None:
        """Adds columns of the run table."""
        self._known |= columns

    def write(self, status: Status, reason: str = "") -> RunResult:
        """The row as known now. The first process also writes it, unless it has written `ok` or `diverged` before.

        Raises:
            OSError: the disk is full.
        """
        seconds = self.seconds
        cost = {"wall_seconds": round(seconds, 3), "goodput": round(self._in_steps / seconds, 6)}
        row = result_of(self._spec, status, excluded_reason=reason, **cost, **self._known)
        if jax.process_index() == 0:
            with self._writing:
                if not self._ended:
                    write_result(self._folder / RESULT_FILE, row)
                self._ended = status in (Status.OK, Status.DIVERGED)
        return row

    def close(self) -> None:
        """Blocks every later `write` for ever. Only a thread that ends the process may call it."""
        self._writing.acquire()


def _versions() -> str:
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in REPORTED_PACKAGES)


def _git_sha() -> str:
    """The commit of the checkout that the program runs from; empty for an installed package."""
    here = pathlib.Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _peak_memory_bytes() -> float:
    """The peak of the first local device's memory. For a CPU, of which jax does not say it, that of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return float(stats.get("peak_bytes_in_use", peak_memory_bytes()))
