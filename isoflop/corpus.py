"""Checks before planning and before the first run: a sweep's corpus is the planned one, and is large enough."""

from collections.abc import Iterable

from mdm_jax.data.manifest import MANIFEST_FILE, Manifest, check_matches, read_manifest
from mdm_jax.files.storage import as_path, is_file
from mdm_jax.spec import DataSpec, EvaluationSpec, RunSpec
from mdm_jax.spec.validation import require

LEEWAY = 1.2
"""Safety factor. A validation split holds whole documents, so its share of the text is not exact."""


def find_manifest(directory: str) -> Manifest | None:
    """The manifest of a corpus; None if the corpus is not prepared yet.

    Raises:
        ValueError: the file is not a manifest.
    """
    return read_manifest(directory) if is_file(as_path(directory) / MANIFEST_FILE) else None


def check_corpora(runs: Iterable[RunSpec], prepared: bool) -> None:
    """Checks that every run's corpus is the planned one and has enough text.

    Args:
        runs: the runs of a plan.
        prepared: True refuses a corpus that is not prepared. False checks only the spec of its runs.

    Raises:
        ValueError: a corpus is absent, or not the planned one; its training split is shorter than one row; its
            validation split has fewer tokens than `eval_tokens`; or `eval_tokens` fill no batch. One line names the
            setting and the bound.
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
    tokens = evaluation.batch * data.seq_len
    full = evaluation.eval_tokens // data.seq_len >= evaluation.batch
    bound = f"at least {tokens}, one batch: evaluation.batch = {evaluation.batch} rows of data.seq_len = {data.seq_len}"
    require(full, "run.evaluation.eval_tokens", evaluation.eval_tokens, bound)


def _check_splits(manifest: Manifest, data: DataSpec, evaluation: EvaluationSpec) -> None:
    held_out, trained = manifest.validation.tokens, manifest.train.tokens
    if manifest.is_pairs:  # a pair counts as a row; some may be too long for one, which the run tells
        held_out, trained = (manifest.positions(split, data.seq_len) for split in ("validation", "train"))
    fraction_per_token = max(1 / (held_out + trained), manifest.validation_fraction / max(held_out, 1))
    fraction = LEEWAY * evaluation.eval_tokens * fraction_per_token
    fix = "prepare more text"
    if fraction < 0.5:
        fix = f"prepare it again with --validation-fraction {fraction:.2g}, or more text"
    split = f"at most {held_out}, the tokens of the validation split of {data.directory}: {fix}"
    require(evaluation.eval_tokens <= held_out, "run.evaluation.eval_tokens", evaluation.eval_tokens, split)
    row = f"at most {trained}, the tokens of the training split of {data.directory}: or prepare a larger corpus"
    require(data.seq_len <= trained, "run.data.seq_len", data.seq_len, row)
