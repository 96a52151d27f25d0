"""Free memory that the allocator of the process still holds."""

import ctypes
import sys


def return_free_memory() -> None:
    """Returns to the system what the allocator holds free, where it can (glibc).

    A compiler leaves hundreds of MB behind in small pieces, and they count as memory of the process until then.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
