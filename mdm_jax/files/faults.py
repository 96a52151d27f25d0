"""Errors that may pass: the disk, the network, a store or another process failed, and not the program.

Libraries of object stores raise their own classes, which are not OSErrors. jax raises one class for everything, with an
absl status at the start of the message. Both are recognised by name and text, so that no such package is imported.
"""

import re

STORES = {"aiohttp", "gcsfs", "s3fs", "adlfs", "botocore", "google", "requests", "urllib3", "http", "fsspec"}
"""Packages whose exceptions mean that the network or a service failed."""
OF_JAX = {"JaxRuntimeError", "XlaRuntimeError"}
PASSING_STATUS = r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b"
MAY_PASS = re.compile(PASSING_STATUS)
UNCLEAR = re.compile(r"(INTERNAL|UNKNOWN|FAILED_PRECONDITION)\b")
"""Statuses that mean a lost process only if the message matches `LOST_PEER`."""
LOST_PEER = re.compile(
    r"Gloo \w+ failed|gloo/transport|Gloo context initialization failed|[Cc]onnection (reset|refused|closed)"
    r"|[Ss]ocket closed|[Bb]roken pipe|coordination service|CoordinationService|heartbeat|NCCL.*(remote|network|peer)"
)


def may_pass(error: BaseException) -> bool:
    """Whether the same command may succeed later. Then the exit code is 42, and the run stays `running`."""
    if isinstance(error, OSError):
        return True
    if any(cls.__module__.partition(".")[0] in STORES for cls in type(error).__mro__):
        return True
    if type(error).__name__ in OF_JAX or isinstance(error, ValueError):
        message = str(error)  # some of jax's statuses arrive as a ValueError
        return bool(MAY_PASS.match(message) or (UNCLEAR.match(message) and LOST_PEER.search(message)))
    cause = error.__cause__
    return cause is not None and may_pass(cause)
