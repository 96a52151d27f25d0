"""The peak of this process's memory, which a worker forgets before each run."""

import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_memory_bytes() -> int:
    """The most memory that the process has held since `forget_peak_memory`, or since its start where that fails."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def forget_peak_memory() -> None:
    """Makes the present memory the peak, where the kernel can do so (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
