"""Exports a run as a safetensors file under SMDM's names, or imports such a file.

`export RUN FILE` writes the weights that the run's evaluation uses, of its newest whole checkpoint. `import FILE OUT`
checks a file of SMDM's and writes it anew in float32, with the model's shape in it: OUT needs no config.json beside it.
"""

import argparse
import sys
from collections.abc import Sequence

from mdm_jax.command import DONE, exit_code, new_parser


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.interop.smdm", __doc__)
    flags.add_argument("command", choices=("export", "import"))
    flags.add_argument("source", help="the run's folder, or SMDM's file")
    flags.add_argument("target", help="the safetensors file to write")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        from mdm_jax.trained.load import load  # jax, which --help and a wrong flag need not wait for

        model = load(flags.source)
        model.export(flags.target)
        print(f"{flags.target}: {model}")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
