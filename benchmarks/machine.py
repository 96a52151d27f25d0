"""The machine's name, the results that are kept by it, and the peak of a process's memory."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm_jax.files.storage import write_atomic
from mdm_jax.run.peak_memory import peak_memory_bytes


def machine() -> str:
    """The processor's kind and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, cpu"


def add_results(file: Path, found: Mapping[str, Any]) -> None:
    """Writes what this machine found into a JSON file of results. Only its results of the same names are replaced."""
    results = json.loads(file.read_text()) if file.exists() else {}
    results.setdefault(machine(), {}).update(found)
    write_atomic(file, json.dumps(results, indent=1) + "\n")


def peak_bytes() -> int:
    """The peak of this process's memory in bytes, on Linux without that of the process which started it."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return peak_memory_bytes()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
