"""The machine's name, the results that are kept by it, and the peak of a process's memory."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm_jax.files.storage import write_atomic
from mdm_jax.run.peak_memory import peak_memory_bytes


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor and the number of cores that this process may use.

    A virtual machine may hide the processor's name, but not its family and model.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    except OSError:
        lines = ()
    said = {name.strip(): value.strip() for name, _, value in lines}
    names = (("", "model name"), ("family ", "cpu family"), ("model ", "model"))
    found = ", ".join(title + said[name] for title, name in names if name in said)
    return f"{found or platform.processor() or platform.machine()}, {cores} cores"


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
