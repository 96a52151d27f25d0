"""Planner: budgets and sizes in, `plan.jsonl` and the printed grid out. Loads no jax and answers in under a second.

    python -m isoflop.plan --config experiments/quickstart.py --out runs/quickstart
    python -m isoflop.plan --budgets 6e18,1e19 --sizes 113,170,231 --out runs/mine

Without --config the setting is SMDM's (rows of 2048, vocabulary 32000, batch 256, recipe smdm_code); every key of the
experiment's `run` and `sweep` sections can be set. The plan is a pure function of these inputs and the corpus manifest.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from isoflop.cli import EXIT_OK, Parser, comma_list, exit_code, numbers
from isoflop.cost import Speed
from isoflop.grid import make_grid
from isoflop.grid_table import show_grid
from isoflop.planfile import PLAN_FILE, write_plan
from isoflop.sweep import SweepSpec, default_sweep, product
from mdm_jax.config import default_run, load_config, override
from mdm_jax.manifest import MANIFEST_FILE, Manifest, check_matches, read_manifest
from mdm_jax.spec import BYTES_VOCAB_SIZE, Family, HardwareSpec, RunSpec, TokenizerKind
from mdm_jax.storage import as_path
from mdm_jax.tree import build, require, to_dict


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 after one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    return exit_code("isoflop.plan", lambda: _plan(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m isoflop.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="the sweep's directory: DIR/plan.jsonl is written")
    add("--config", metavar="FILE", help="an experiment file (Python, run as it is: only ones you trust)")
    add("--budgets", type=numbers, metavar="C,…", help="training FLOPs of each curve, such as 6e18,1e19")
    add("--sizes", type=comma_list, metavar="SIZE,…", help="SMDM's ladder (6 … 2121) or LAYERSxWIDTH, such as 2x64")
    add("--families", type=comma_list, metavar="F,…", help="mdm,arm: both if left out; alone it picks the config's")
    add("--seq-len", type=int, metavar="L", help="tokens a row")
    add("--vocab-size", type=int, metavar="V", help="257 is bytes, anything else sentencepiece trained on the corpus")
    add("--batch", type=int, metavar="B", help="sequences a step, in place of the recipe's")
    add("--recipe", metavar="NAME", help="smdm_code, smdm_paper or tiny")
    add("--data", metavar="DIR", help="the prepared corpus; corpus, tokenizer and vocabulary are its manifest's")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="any key, such as sweep.seeds=[0,1]")
    default = Speed()
    add("--flops-per-second", type=float, default=default.flops_per_second, metavar="F", help="for the estimated time")
    add("--run-overhead", type=float, default=default.run_overhead_seconds, metavar="S", help="seconds a run, likewise")
    return parser


def _plan(options: argparse.Namespace) -> int:
    config = _config(options)
    sections = config.to_dict()
    hardware = build(HardwareSpec, sections["run"].pop("hardware"), "run.hardware.")
    template, sweep = build(RunSpec, sections["run"], "run."), build(SweepSpec, sections["sweep"], "sweep.")
    manifest = _manifest(template.data.directory)
    if manifest:
        check_matches(manifest, template.data)
        data = dataclasses.replace(template.data, data_hash=manifest.data_hash)
        template = dataclasses.replace(template, data=data)
    runs = make_grid(template, sweep, hardware)
    speed = Speed(options.flops_per_second, options.run_overhead)
    written = write_plan(options.out, runs)
    unique = manifest.train.unique_tokens(template.data.seq_len) if manifest else None
    show_grid(written.runs, speed, unique)
    if written.repaired:
        print(f"{written.repaired} half-written line(s) of the older plan written anew")
    print(f"{as_path(options.out) / PLAN_FILE}: {len(written.runs)} runs, {written.added} of them new")
    print(f"next: python -m isoflop.run {options.out}")
    return EXIT_OK


def _manifest(directory: str) -> Manifest | None:
    """The corpus manifest, None where the corpus is not prepared yet."""
    return read_manifest(directory) if (as_path(directory) / MANIFEST_FILE).is_file() else None


def _config(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """The experiment's config, or SMDM's setting, with the flags and then the --set settings applied."""
    if options.config:
        config = load_config(options.config)
        absent = [section for section in ("run", "sweep") if section not in config]
        require(not absent, options.config, f"no section {' and '.join(absent)}", "ConfigDict(run=…, sweep=…)")
    else:
        if not (options.budgets and options.sizes):
            raise ValueError("give --config FILE, or --budgets and --sizes (--help lists the flags)")
        config = _smdm_config()
    settings: dict[str, object] = {}
    if options.budgets or options.sizes or options.families:
        settings["sweep.curves"] = _curves(options, config)
    flags = {
        "run.data.seq_len": options.seq_len,
        "sweep.global_batch": options.batch,
        "sweep.recipe": options.recipe,
        "run.data.directory": options.data,
    }
    settings |= {key: value for key, value in flags.items() if value is not None}
    settings |= _vocabulary(options)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(settings)
    return override(config, options.set)


def _curves(options: argparse.Namespace, config: Any) -> list[dict[str, object]]:
    """The curves that the flags ask for: a product in place of the config's, or the config's of some families."""
    if options.budgets and options.sizes:
        return product(options.families or [family.value for family in Family], options.budgets, options.sizes)
    if options.budgets or options.sizes:
        raise ValueError("--budgets and --sizes replace the experiment's curves: give both")
    known = [family.value for family in Family]
    for name in options.families:
        require(name in known, "--families", name, f"one of {', '.join(known)}")
    return [curve for curve in config.sweep.curves if curve.get("family", known[0]) in options.families]


def _vocabulary(options: argparse.Namespace) -> dict[str, object]:
    """Settings of corpus, tokenizer and vocabulary: from the manifest of --data where there is one, or --vocab-size."""
    manifest = _manifest(options.data) if options.data else None
    size = options.vocab_size
    if manifest:
        require(size in (None, manifest.vocab_size), "--vocab-size", size, f"the manifest's {manifest.vocab_size}")
        return {
            "run.data.corpus": to_dict(manifest.corpus),
            "run.data.tokenizer": to_dict(manifest.tokenizer),
            "run.data.validation_fraction": manifest.validation_fraction,
            "run.model.vocab_size": manifest.vocab_size,
        }
    if size is None:
        return {}
    kind = TokenizerKind.BYTES if size == BYTES_VOCAB_SIZE else TokenizerKind.SENTENCEPIECE
    return {
        "run.data.tokenizer": {"kind": kind.value, "vocab_size": size, "path": ""},
        "run.model.vocab_size": size,
    }


def _smdm_config() -> ml_collections.ConfigDict:
    """Rows, vocabulary and recipe of SMDM, on a sentencepiece vocabulary of its size trained on the corpus at hand."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 2048
    config.run.data.tokenizer.kind = TokenizerKind.SENTENCEPIECE.value
    config.run.data.tokenizer.vocab_size = config.run.model.vocab_size = 32000
    config.run.data.directory = "data/pydoc-sentencepiece32000"
    config.run.evaluation.mc_samples = 128
    config.sweep.recipe = "smdm_code"
    return config


if __name__ == "__main__":
    raise SystemExit(main())
