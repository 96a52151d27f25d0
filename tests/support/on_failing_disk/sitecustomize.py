"""Python imports this file at its start, where this folder is on PYTHONPATH: a supervised process then has a bad disk.

The supervisor starts the process that trains by itself, so a test cannot start that one through `failing_disk.run`.
"""

from failing_disk import fail_once

from mdm_jax.run.supervised import is_supervised

DISK = fail_once()  # kept: what ends it is that nobody holds it any more
if is_supervised():
    DISK.__enter__()
