"""Settings: the experiment's config as the flags change it, and the machine that its costs are estimated for."""

import argparse
from typing import Any

import ml_collections

from isoflop.cost import Machine, find_machine
from isoflop.sweep import default_sweep, recast
from mdm_jax.config import default_run, load_config, override
from mdm_jax.manifest import read_manifest
from mdm_jax.spec import BYTES_VOCAB_SIZE, Family, TokenizerKind
from mdm_jax.spec.validation import require, to_dict

FAMILIES = tuple(family.value for family in Family)
SMDM_SEQ_LEN = 2048


def machine_of(options: argparse.Namespace) -> Machine:
    """The machine that times and costs are estimated for: `--hardware`, or a speed that is given or assumed."""
    speed, overhead = options.flops_per_second, options.run_overhead
    if options.hardware is not None:
        fix = "left out with --hardware, whose speed is its peak times --mfu"
        require(speed is None, "--flops-per-second", speed, fix)
        return find_machine(options.hardware, options.mfu, options.price, overhead)
    require(options.mfu is None, "--mfu", options.mfu, "given with --hardware")
    given = {"peak_flops_per_second": speed, "price_per_hour": options.price, "run_overhead_seconds": overhead}
    return Machine().given(**{name: value for name, value in given.items() if value is not None})


def config_of(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """The experiment's config, or SMDM's setting, with the flags and then the --set settings applied."""
    if options.config:
        config = load_config(options.config)
        absent = [section for section in ("run", "sweep") if section not in config]
        require(not absent, options.config, f"no section {' and '.join(absent)}", "ConfigDict(run=…, sweep=…)")
    else:
        if not options.budgets:
            raise ValueError("give --config FILE, or --budgets (--help lists the flags)")
        config = _smdm_config(options.seq_len or SMDM_SEQ_LEN)
    settings = _curves(options, config)
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


def _curves(options: argparse.Namespace, config: Any) -> dict[str, object]:
    """Settings that make the curves what the flags ask for.

    With `--sizes` every budget gets every size. With `--budgets` alone the rule places sizes. With `--families` alone
    the config's own curves of these families stay.
    """
    for name in options.families or ():
        require(name in FAMILIES, "--families", name, f"one of {', '.join(FAMILIES)}")
    placed = {"prior": options.prior, "overlap": options.overlap, "holdout_budgets": options.holdout}
    settings: dict[str, object] = {f"sweep.placement.{k}": v for k, v in placed.items() if v is not None}
    if options.sizes:
        require(
            bool(options.budgets), "--sizes", ",".join(options.sizes), "given with --budgets: all pairs are planned"
        )
        wrong = [f"--{name}" for name in ("overlap", "holdout") if getattr(options, name)]
        require(
            not wrong, "--sizes", ",".join(options.sizes), f"left out with {' and '.join(wrong)}, which place sizes"
        )
        own = [curve.get("family", FAMILIES[0]) for curve in config.sweep.curves]
        families = options.families or [name for name in FAMILIES if name in own] or FAMILIES
        curves = recast(config.sweep.curves, families, options.budgets, options.sizes)
        return settings | {"sweep.curves": curves, "sweep.placement.budgets": ()}
    if options.budgets:
        own = {"sweep.curves": (), "sweep.placement.budgets": options.budgets}
        own |= {f"sweep.placement.{family}_budgets": () for family in FAMILIES}
        return own | ({"sweep.placement.families": options.families} if options.families else {}) | settings
    if options.families:
        chosen = [curve for curve in config.sweep.curves if curve.get("family", FAMILIES[0]) in options.families]
        rest = [name for name in config.sweep.placement.families if name in options.families]
        settings |= {"sweep.curves": chosen, "sweep.placement.families": rest or options.families}
    return settings


def _vocabulary(options: argparse.Namespace) -> dict[str, object]:
    """Settings of corpus, tokenizer and vocabulary, from the manifest of `--data` or from `--vocab-size`."""
    size = options.vocab_size
    if options.data is not None:
        manifest = read_manifest(options.data)
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


def _smdm_config(seq_len: int) -> ml_collections.ConfigDict:
    """Rows, vocabulary and recipe of SMDM, on a sentencepiece vocabulary of its size trained on the corpus at hand.

    Evaluation batches of long rows are as small as the tokens of the evaluation need to fill one.
    """
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    evaluation = config.run.evaluation
    config.run.data.seq_len = seq_len
    config.run.data.tokenizer.kind = TokenizerKind.SENTENCEPIECE.value
    config.run.data.tokenizer.vocab_size = config.run.model.vocab_size = 32000
    config.run.data.directory = "data/pydoc-sentencepiece32000"
    evaluation.mc_samples = 128
    evaluation.batch = max(2, min(evaluation.batch, evaluation.eval_tokens // max(1, seq_len) // 2 * 2))
    config.sweep.recipe = "smdm_code"
    return config
