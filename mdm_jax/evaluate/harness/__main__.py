"""Evaluates a trained model on tasks of lm-evaluation-harness, with both errors of each metric.

MODEL is a run's folder, a safetensors file or a Hugging Face folder. `--tasks` takes names, groups, tags or patterns of
the harness; its data sets are downloaded unless `--include-path` has tasks of local files. `--preset smdm` has the
estimators and the guidance of the SMDM paper for its eight tasks; other flags replace its settings. The table shows
each metric with its error over documents and its Monte Carlo error. `--out FILE` writes the harness's results as JSON
with a section `mdm_jax`, which `python -m mdm_jax.evaluate.table` joins with other models' results.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from mdm_jax.command import DONE, comma_list, exit_code, new_parser
from mdm_jax.evaluate.table import read_tree, results_table, write_tree
from mdm_jax.files.storage import check_writable
from mdm_jax.spec import Likelihood

PRESETS = ("smdm",)
"""The names of `estimators.PRESETS`, which loads jax."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.evaluate.harness", __doc__)
    add = flags.add_argument
    add("model", metavar="MODEL", help="a run's folder, a safetensors file or a Hugging Face folder")
    add("--tasks", required=True, type=comma_list, metavar="A,B", help="tasks of the harness")
    add("--preset", default="", metavar="NAME", help=f"settings of a paper for its tasks: {', '.join(PRESETS)}")
    add("--method", metavar="NAME", help=f"estimator of all tasks: {', '.join(Likelihood)} (default: nelbo)")
    add("--guidance", type=float, metavar="W", help="weight of classifier-free guidance (default: 0, none)")
    add("--draws", type=int, metavar="N", help="most Monte Carlo draws for each answer (default: 128)")
    add("--max-se", type=float, metavar="NATS", help="draw until an answer's standard error is below this")
    add("--seed", type=int, default=0, help="seed of the Monte Carlo draws (default: %(default)s)")
    add("--rolling-context", type=int, default=1, metavar="N", help="tokens before each window of a rolling task")
    add("--sampler", default="", metavar="NAME", help="sampler of new text (default: confidence; an ARM has its own)")
    add("--steps", type=int, metavar="N", help="steps of each generated text (default: one a token)")
    add("--block", type=int, metavar="N", help="generate blocks of N tokens from left to right")
    add("--limit", type=int, metavar="N", help="only the first N documents of each task")
    add("--num-fewshot", type=int, metavar="N", help="examples before each question")
    add("--include-path", metavar="DIR", help="folder of further tasks, as YAML files")
    add("--use-cache", default="", metavar="FILE", help="file of scores: a stopped evaluation goes on from it")
    add("--out", metavar="FILE", help="JSON file of the results")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        if flags.out:
            check_writable(flags.out)
        try:
            tree = _results(flags)
        except KeyboardInterrupt:
            way = f"goes on from {flags.use_cache}" if flags.use_cache else "begins anew; --use-cache FILE keeps scores"
            raise KeyboardInterrupt(f"interrupted: the same command {way}") from None
        if flags.out:
            write_tree(flags.out, tree)
        print(results_table([read_tree(tree, flags.out or flags.model)]))
        return DONE

    return exit_code(work)


def _results(flags: argparse.Namespace) -> dict[str, Any]:
    _require_harness()
    from mdm_jax.evaluate.harness.adapter import OPTIONS, HarnessModel
    from mdm_jax.evaluate.harness.evaluation import evaluate_tasks

    values = vars(flags) | {"path": flags.model, "cache": flags.use_cache}
    model = HarnessModel.create_from_arg_obj({name: values[name] for name in OPTIONS if values[name] is not None})
    return evaluate_tasks(model, flags.tasks, flags.include_path, flags.limit, flags.num_fewshot)


def _require_harness() -> None:
    try:
        importlib.import_module("lm_eval")
    except ImportError as error:
        raise ValueError(f"lm-evaluation-harness is absent ({error}): pip install 'mdm-jax[harness]'") from None


if __name__ == "__main__":
    sys.exit(main())
