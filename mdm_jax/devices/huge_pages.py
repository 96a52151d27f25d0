"""Large arrays of the host on huge pages (Linux with glibc).

On a CPU, XLA allocates the working memory of a step when the step begins, and frees it at its end. glibc returns a
block of more than 32 MB to the system. So the system must map each page again in the next step, and fill it with zeros.
A page of 2 MB costs much less than 512 pages of 4 KB. glibc asks the kernel for such pages if the environment says so
when the process begins. A process that has begun cannot change it, so it starts itself again.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process whose large arrays lie on huge pages. What the user has set for them stays."""
    given = environment.get(VARIABLE, "")
    if sys.platform != "linux" or TUNABLE in given:
        return dict(environment)
    return {**environment, VARIABLE: ":".join(filter(None, (given, f"{TUNABLE}=1")))}


def restart_with_huge_pages() -> None:
    """Starts this command again in the same process, with the environment above.

    It returns if the process has this environment already, or if the system does not start the command again.
    """
    environment = with_huge_pages(os.environ)
    if environment != dict(os.environ) and sys.executable:
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
