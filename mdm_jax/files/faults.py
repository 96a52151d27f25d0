"""Which errors may pass: the disk, the network, a store or another process failed, and the program did not.

Libraries of object stores raise classes of their own that are no OSError, and jax one class for everything, with an
absl status in front of its message. They are told by name and by text, so that none of these packages has to be here.
"""

import re

STORES = {"aiohttp", "gcsfs", "s3fs", "adlfs", "botocore", "google", "requests", "urllib3", "http", "fsspec"}
"""Packages whose exceptions are those of a network or of a service on it."""
OF_JAX = {"JaxRuntimeError", "XlaRuntimeError"}
PASSING_STATUS = r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b"
MAY_PASS = re.compile(PASSING_STATUS)
UNCLEAR = re.compile(r"(INTERNAL|UNKNOWN|FAILED_PRECONDITION)\b")
"""Statuses that mean a lost process only where the words say so."""
LOST_PEER = re.compile(
    r"Gloo \w+ failed|gloo/transport|Gloo context initialization failed|[Cc]onnection (reset|refused|closed)"
    r"|[Ss]ocket closed|[Bb]roken pipe|coordination service|CoordinationService|heartbeat|NCCL.*(remote|network|peer)"
)


def may_pass(error: BaseException) -> bool:
    """Whether the same command may well succeed later: exit code 42, and the run stays `running`."""
    if isinstance(error, OSError):
        return True
    if any(cls.__module__.partition(".")[0] in STORES for cls in type(error).__mro__):
        return True
    if type(error).__name__ in OF_JAX or isinstance(error, ValueError):
        return _is_lost_peer(str(error))
    cause = error.__cause__
    return cause is not None and may_pass(cause)


def _is_lost_peer(message: str) -> bool:
    """Whether a status says that another process is lost; some statuses arrive as a ValueError with the same text."""
    return bool(MAY_PASS.match(message) or (UNCLEAR.match(message) and LOST_PEER.search(message)))
