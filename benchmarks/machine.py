"""The machine's name, by which results are kept, and the peak of a process's memory."""

import os
import platform
import resource
from pathlib import Path


def machine() -> str:
    """The processor's kind and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, cpu"


def peak_bytes() -> int:
    """The peak of this process's memory in bytes, without that of the process which started it."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
