"""Adds the columns of exact likelihoods to the row of a finished run, from the weights of its last step."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
from jax.sharding import Mesh

from mdm_jax.data.corpus import open_corpus
from mdm_jax.devices.absent_tpu import skip_absent_tpu
from mdm_jax.devices.sharding import abstract_arrays, make_mesh, run_mesh
from mdm_jax.evaluate.partial_losses import partial_file
from mdm_jax.files.layout import CHECKPOINTS_FOLDER, RESULT_FILE, read_spec
from mdm_jax.files.lock import hold_run
from mdm_jax.files.results import (
    LIKELIHOOD_COLUMNS,
    TRUNK_SEGMENT,
    RunResult,
    Status,
    contradictions,
    implied_by,
    missing_likelihoods,
    read_result,
    result_tree,
    write_result,
)
from mdm_jax.files.storage import Path, is_file
from mdm_jax.run.final_evaluation import FinalEvaluation, evaluated_rows, likelihood_columns
from mdm_jax.spec import Family, Likelihood, RowKind, RunSpec
from mdm_jax.spec.validation import require
from mdm_jax.train.checkpoint import read_step
from mdm_jax.train.loop import Watch
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import make_state
from mdm_jax.train.stop import Phase


def add_likelihoods(folder: Path, likelihoods: Sequence[Likelihood], watch: Watch) -> str:
    """One line that says what the run's row has now, or why the run is left out.

    Each likelihood is written as soon as it is known. A run that has them all is not read further. The run's folder is
    locked meanwhile.

    Args:
        folder: the run's folder.
        likelihoods: exact likelihoods.
        watch: it is asked whether to stop, and gets the phase and the messages.

    Raises:
        ValueError: the result, the spec, the data or the last checkpoint is absent, damaged or does not fit the others.
        Held: another process works on the run.
        Diverged: a loss is not finite.
        Preempted: the evaluation was asked to stop. Its losses so far are saved.
        OSError: a file cannot be read or written now.
    """
    if not is_file(folder / RESULT_FILE):
        return f"{folder.name}: left out, it has no result yet"
    row = read_result(folder / RESULT_FILE)
    if row.status is not Status.OK or row.excluded_reason == TRUNK_SEGMENT:
        return f"{row.run_id}: left out, {row.excluded_reason or f'its status is {row.status.value}'}"
    require(row.loss is not None, f"{folder / RESULT_FILE}: loss", row.loss, "a number in the row of a finished run")
    if not missing_likelihoods(row, likelihoods):
        return f"{_losses_text(row, likelihoods)} (it had them)"
    with hold_run(folder, watch.say):
        row = read_result(folder / RESULT_FILE)  # another process may have held the run and added some
        spec, missing = read_spec(folder), missing_likelihoods(row, likelihoods)
        if spec.data.rows is not RowKind.TEXT:
            return f"{row.run_id}: left out, its rows are pairs: Model.loglikelihood scores them"
        wrong = contradictions(result_tree(folder / RESULT_FILE), spec)
        require(not wrong, f"{folder}: {RESULT_FILE} against its spec", ", ".join(wrong), "equal in both")
        row = dataclasses.replace(row, **implied_by(spec))  # columns that a row of an earlier version does not have
        for one, columns in zip(missing, _columns(spec, folder, row, missing, watch), strict=True):
            row = dataclasses.replace(row, **columns)
            write_result(folder / RESULT_FILE, row)
            (folder / partial_file(one)).unlink(missing_ok=True)
    return _losses_text(row, likelihoods)


def _columns(
    spec: RunSpec, folder: Path, row: RunResult, missing: Sequence[Likelihood], watch: Watch
) -> Iterator[Mapping[str, float | None]]:
    """The columns of each missing likelihood. An ARM's loss is one already."""
    if spec.family is Family.ARM:
        assert row.loss is not None  # `add_likelihoods` refuses such a row
        yield from (likelihood_columns(one, row.loss, row.loss_se_data) for one in missing)
    if spec.family is Family.ARM or not missing:
        return
    corpus = open_corpus(spec.data)
    found, bound = corpus.manifest.data_hash, f"{row.data_hash}, with which the run was evaluated: restore that data"
    require(found == row.data_hash, f"{spec.data.directory}: data_hash", found, bound)
    rows_SL = evaluated_rows(spec, corpus)
    mesh = _mesh(spec)
    with jax.set_mesh(mesh):
        watch.phase = Phase.NOTHING_NEW
        like = abstract_arrays(mesh, lambda: make_state(spec))
        identity = Identity(spec.spec_hash, row.data_hash)
        state = read_step(folder / CHECKPOINTS_FOLDER, spec.schedule.steps, like, identity)
        evaluation = FinalEvaluation(spec, folder, row.data_hash, mesh, rows_SL, watch)
        yield from (evaluation.likelihood(state.evaluated, one) for one in missing)


def _mesh(spec: RunSpec) -> Mesh:
    """The run's own mesh if there are enough devices, else one device."""
    skip_absent_tpu()
    needed, devices = spec.hardware.devices, jax.devices()
    return run_mesh(spec, devices[:needed]) if needed <= len(devices) else make_mesh(1, 1, devices[:1])


def _losses_text(row: RunResult, likelihoods: Sequence[Likelihood]) -> str:
    """The run's losses in a line."""
    losses = {row.loss_kind.value: row.loss}
    losses |= {one.value: getattr(row, LIKELIHOOD_COLUMNS[one][0]) for one in likelihoods}
    return f"{row.run_id}: {', '.join(f'{name} {loss:.4f}' for name, loss in losses.items())} nats/token"
