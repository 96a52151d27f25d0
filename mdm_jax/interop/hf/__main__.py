"""Exports a model as a Hugging Face folder, or imports such a folder.

`export MODEL FOLDER` takes a run's folder or a safetensors file. An ARM becomes a `LlamaForCausalLM` that transformers
and vLLM read. An MDM gets LLaDA's layout. The tokenizer is written too, unless there is `--no-tokenizer`.
`import FOLDER FILE` checks a folder and writes the model as one safetensors file under SMDM's names, in float32.
"""

import argparse
import sys
from collections.abc import Sequence

from mdm_jax.command import DONE, exit_code, new_parser


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.interop.hf", __doc__)
    flags.add_argument("command", choices=("export", "import"))
    flags.add_argument("source", help="the run's folder or safetensors file, or the Hugging Face folder")
    flags.add_argument("target", help="the folder to write, absent or empty, or the safetensors file")
    flags.add_argument("--no-tokenizer", action="store_true", help="export without tokenizer files")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        from mdm_jax.trained.load import load  # jax, which --help and a wrong flag need not wait for

        model = load(flags.source)
        if flags.command == "export":
            model.export_hf(flags.target, tokenizer=not flags.no_tokenizer)
        else:
            model.export(flags.target)
        print(f"{flags.target}: {model}")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
