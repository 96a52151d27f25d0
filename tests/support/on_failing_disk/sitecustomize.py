"""Python imports this file at its start where this folder is on PYTHONPATH: `running.on_failing_disk` puts it there."""

from failing_disk import fail_once

DISK = fail_once()  # kept: what ends it is that nobody holds it any more
DISK.__enter__()
