"""Executes the runs of a sweep one after another in this process, as `isoflop.run` orders them on standard input.

    python -m mdm_jax.run.worker ANSWERS

A process for each run pays for the imports, and traces and compiles every program again. In a worker, runs of equal
shape share their programs (see `spec/programs.py`). Each order is a line (see `orders.py`). The answer goes to the pipe
with the number ANSWERS. What a run prints goes to its own log, as if it had the process alone.

A run ends in one of two ways. Either `mdm_jax.main` returns an exit code, which is the answer. Or the process ends: by
a signal, by a crash, or because a thread of the run ends it. Then the end of the process is the end of the run.

A worker ends, and the runner starts another one, in these cases:

- A run did not end with 0. What made it fail may be a state of the process, and the next run must not inherit it.
- A run's memory passed `MOST_PEAK_BYTES`. The allocator does not give all of it back, and it would be missing in the
  other workers. A run of that size takes minutes, so that a new start costs nothing in comparison.
- It has executed `MOST_RUNS` runs. Programs stay in memory, and the kernel limits the mappings of a process, of which
  each program has a few.

After the end of its input, a worker ends when its run has ended. So the runs of a killed runner come to their end.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mdm_jax.command import BAD, DONE, flush_output, new_parser
from mdm_jax.files.storage import open_no_link
from mdm_jax.main import main as execute
from mdm_jax.run.orders import Answer, Order, read_order
from mdm_jax.run.peak_memory import forget_peak_memory, peak_memory_bytes

MOST_PEAK_BYTES = 2 << 30
MOST_RUNS = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the process: that of its last run, or 0 without any."""
    flags = new_parser("mdm_jax.run.worker", __doc__)
    flags.add_argument("answers", metavar="ANSWERS", type=int, help="file descriptor of the pipe for answers")
    answers = flags.parse_args(argv).answers
    orders = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())  # what a run starts must not read the orders
    code = DONE
    for number, line in enumerate(orders, 1):
        forget_peak_memory()
        code = _executed(read_order(line))
        goes_on = code == DONE and number < MOST_RUNS and peak_memory_bytes() <= MOST_PEAK_BYTES
        try:
            os.write(answers, Answer(code, goes_on).line())
        except BrokenPipeError:  # the runner was killed
            break
        if not goes_on:
            break
    return code


def _executed(order: Order) -> int:
    """The exit code of the run."""
    with open_no_link(Path(order.log), "ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    try:
        return execute(order.arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else BAD
    except Exception:
        with suppress(OSError):  # the log may be on a full disk
            traceback.print_exc()
        flush_output()
        return BAD


if __name__ == "__main__":
    sys.exit(main())
