"""Temporal shift: does the loss of an MDM grow more slowly than that of an ARM on texts newer than the training texts?

    python -m mdm_jax.tasks.temporal split --changelogs --until 2016-01-01 --out data/dated
    python -m mdm_jax.tasks.temporal evaluate RUN [RUN ...] --slices data/dated --out results/temporal

`split` divides dated texts into a training corpus and test slices by date. `evaluate` measures the loss of trained
models on each slice. Each command has its own --help.
"""

import argparse
import sys
from collections.abc import Sequence

from mdm_jax.command import exit_code, new_parser

COMMANDS = ("split", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        if words[0] == "split":
            from mdm_jax.tasks.temporal import splitting as command
        else:
            from mdm_jax.tasks.temporal import evaluating as command
        flags = command.parser().parse_args(words[1:])
        return exit_code(lambda: command.work(flags))
    overview = new_parser("mdm_jax.tasks.temporal", __doc__)
    overview.add_argument("command", choices=COMMANDS, help="what to do")
    overview.add_argument("flags", nargs=argparse.REMAINDER, help="flags of the command")
    overview.parse_args(words)
    raise AssertionError("the parser refuses every other command")


if __name__ == "__main__":
    sys.exit(main())
