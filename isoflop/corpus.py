"""Checks at planning, and before the first run starts: the corpus of a sweep is the planned one and large enough."""

from collections.abc import Iterable

from mdm_jax.files.storage import as_path, is_file
from mdm_jax.manifest import MANIFEST_FILE, Manifest, check_matches, read_manifest
from mdm_jax.spec import DataSpec, EvaluationSpec, RunSpec
from mdm_jax.spec.validation import require

LEEWAY = 1.2
"""Documents are whole, so a validation split misses its share by some of them."""


def find_manifest(directory: str) -> Manifest | None:
    """The manifest of a corpus, None where the corpus is not prepared yet.

    Raises:
        ValueError: it is no manifest.
    """
    return read_manifest(directory) if is_file(as_path(directory) / MANIFEST_FILE) else None


def check_corpora(runs: Iterable[RunSpec], prepared: bool) -> None:
    """Returns if every run can read what it trains and is evaluated on.

    Args:
        runs: of a plan.
        prepared: refuses a corpus that is not prepared; without it, only the spec is checked there.

    Raises:
        ValueError: a corpus is absent or another one, its training split holds no whole row, its validation split fewer
            tokens than `eval_tokens`, or these fill no batch. One line names the setting and the bound.
    """
    found: dict[str, Manifest | None] = {}
    for data, evaluation in {(run.data, run.evaluation): None for run in runs}:
        place = data.directory
        if place not in found:
            found[place] = read_manifest(place) if prepared else find_manifest(place)
        _check_batch(data, evaluation)
        manifest = found[place]
        if manifest is not None:
            check_matches(manifest, data)
            _check_splits(manifest, data, evaluation)


def _check_batch(data: DataSpec, evaluation: EvaluationSpec) -> None:
    one = evaluation.batch * data.seq_len
    full = evaluation.eval_tokens // data.seq_len >= evaluation.batch
    bound = f"at least {one}, one batch: evaluation.batch = {evaluation.batch} rows of data.seq_len = {data.seq_len}"
    require(full, "run.evaluation.eval_tokens", evaluation.eval_tokens, bound)


def _check_splits(manifest: Manifest, data: DataSpec, evaluation: EvaluationSpec) -> None:
    held, trained = manifest.validation.tokens, manifest.train.tokens
    held_out = max(1 / (held + trained), manifest.validation_fraction / max(held, 1))  # share of a token, at the worst
    share = LEEWAY * evaluation.eval_tokens * held_out
    fix = "prepare more text"
    if share < 0.5:
        fix = f"prepare it again with --validation-fraction {share:.2g}, or more text"
    split = f"at most {held}, the tokens of the validation split of {data.directory}: {fix}"
    require(evaluation.eval_tokens <= held, "run.evaluation.eval_tokens", evaluation.eval_tokens, split)
    row = f"at most {trained}, the tokens of the training split of {data.directory}: or prepare a larger corpus"
    require(data.seq_len <= trained, "run.data.seq_len", data.seq_len, row)
