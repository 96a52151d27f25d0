"""The experiment's config, with the changes that the flags ask for."""

import argparse
from typing import Any

import ml_collections

from isoflop.sweep import default_sweep, recast
from mdm_jax.config import default_run, load_config, override
from mdm_jax.data.manifest import read_manifest
from mdm_jax.spec import FIXED_VOCAB_SIZES, Family, TokenizerKind
from mdm_jax.spec.validation import require, to_dict

FAMILIES = tuple(family.value for family in Family)
SMDM_SEQ_LEN = 2048


def config_of(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """The experiment's config, or SMDM's settings. The flags are applied first, then --set."""
    if options.config:
        config = load_config(options.config)
        absent = [section for section in ("run", "sweep") if section not in config]
        require(not absent, options.config, f"no section {' and '.join(absent)}", "ConfigDict(run=…, sweep=…)")
    else:
        if not options.budgets:
            raise ValueError("give --config FILE, or --budgets (--help lists the flags)")
        config = _smdm_config(options.seq_len or SMDM_SEQ_LEN)
    settings = _curve_settings(options, config)
    flags = {
        "run.data.seq_len": options.seq_len,
        "sweep.global_batch": options.batch,
        "sweep.recipe": options.recipe,
        "run.data.directory": options.data,
    }
    settings |= {key: value for key, value in flags.items() if value is not None}
    settings |= _vocabulary_settings(options)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(settings)
    return override(config, options.set)


def _curve_settings(options: argparse.Namespace, config: Any) -> dict[str, object]:
    """Settings of the curves that the flags ask for.

    With `--sizes`, every budget gets every size. With `--budgets` alone, a rule places the sizes. With `--families`
    alone, the config's curves of these families stay.
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


def _vocabulary_settings(options: argparse.Namespace) -> dict[str, object]:
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
    kinds = {fixed: kind for kind, fixed in FIXED_VOCAB_SIZES.items()}
    kind = kinds.get(size, TokenizerKind.SENTENCEPIECE)
    return {
        "run.data.tokenizer": {"kind": kind.value, "vocab_size": size, "path": ""},
        "run.model.vocab_size": size,
    }


def _smdm_config(seq_len: int) -> ml_collections.ConfigDict:
    """Rows, vocabulary and recipe of SMDM, on a sentencepiece vocabulary of its size trained on the corpus at hand.

    The evaluation batch is small enough that `eval_tokens` fill one batch of these rows.
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
