"""The reverse curse (Berglund et al. 2023, arXiv 2309.12288): does a model that read "A is B" know "B is A"?

    python -m mdm_jax.tasks.reverse_curse make --out data/reverse --general pydoc --general-bytes 2000000
    python -m mdm_jax.data.prepare --corpus jsonl --path data/reverse/corpus.jsonl --out data/reverse_prepared
    (train models of both families on it, with isoflop.plan and isoflop.run)
    python -m mdm_jax.tasks.reverse_curse evaluate runs/reverse --tests data/reverse/tests.jsonl --out reverse

`make` writes DIR/corpus.jsonl, DIR/statements.jsonl and DIR/tests.jsonl. `evaluate` asks every model all questions, and
writes answers.csv, table.csv, differences.csv and reverse_curse.svg. `make --help` and `evaluate --help` list the
flags.
"""

import sys
from collections.abc import Sequence

from mdm_jax.command import BAD, exit_code, new_parser, say

COMMANDS = ("make", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        flags = new_parser("mdm_jax.tasks.reverse_curse", __doc__)
        flags.add_argument("command", choices=COMMANDS, help="what to do; its own --help lists its flags")
        flags.parse_args(words)
        return say("give a command: make or evaluate", BAD)
    if words[0] == "make":
        from mdm_jax.tasks.reverse_curse import making as command
    else:
        from mdm_jax.tasks.reverse_curse import evaluating as command
    flags = command.parser().parse_args(words[1:])
    return exit_code(lambda: command.work(flags))


if __name__ == "__main__":
    sys.exit(main())
