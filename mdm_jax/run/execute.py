"""One run from its spec to its result: checks before anything compiles, training, the final evaluation, `result.json`.

A run's folder has `spec.json`, `metrics/`, `checkpoints/` and `result.json`. During a long evaluation it also has
`evaluation.part` with the losses so far, and a further file for each exact likelihood. The result is written at the
start, with status `running`, and again at the end with the outcome.

A run with a parent starts from the parent's last checkpoint, and its metrics start there too. The parent's folder is
next to the run's own. A run with `start.path` begins at step 0 with trained weights (see `trained/start.py`). When the
run has its own checkpoint, it needs neither.
"""

import math
from typing import Any

import jax

from mdm_jax.data.corpus import Corpus, TrainingRows, open_corpus
from mdm_jax.devices.sharding import run_mesh
from mdm_jax.evaluate.nelbo import Evaluation
from mdm_jax.files.layout import CHECKPOINTS_FOLDER, METRICS_FOLDER, SPEC_FILE, steps_in
from mdm_jax.files.results import RunResult, Status
from mdm_jax.files.storage import Path, write_atomic
from mdm_jax.interop.model_file import Weights
from mdm_jax.model.transformer import Transformer
from mdm_jax.run.final_evaluation import FinalEvaluation, evaluated_rows, likelihood_columns
from mdm_jax.run.parent import read_parent
from mdm_jax.run.record import Record
from mdm_jax.run.second_try import retried_without_cache
from mdm_jax.spec import Family, RunSpec, to_json
from mdm_jax.spec.validation import require
from mdm_jax.train.checkpoint import Checkpoints, read_step
from mdm_jax.train.loop import Diverged, Watch, train
from mdm_jax.train.metrics import MetricsWriter
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import TrainState, init_state
from mdm_jax.train.stop import Phase
from mdm_jax.trained.start import begun_with, starting_weights


def execute(spec: RunSpec, folder: Path, record: Record, watch: Watch) -> RunResult:
    """Trains and evaluates the run in `folder`, from its newest whole checkpoint, or else from its parent's last.

    Raises:
        ValueError: data, vocabulary, mesh, evaluation or parent do not fit the spec. This is found before anything is
            compiled, except for a damaged checkpoint of the parent.
        ParentNotReady: the parent is not finished.
        Diverged: see `train`; it is recorded in `result.json`.
        Preempted: see `train`.
        OSError: the disk is full or not readable; what was saved before remains.
    """
    corpus = open_corpus(spec.data)
    data_hash = corpus.manifest.data_hash
    before = record.data_hash_before
    bound = f"{before}, with which this run was begun: restore that data or remove the run's folder"
    require(before in ("", data_hash), "data_hash", data_hash, bound)
    eval_SL = evaluated_rows(spec, corpus)
    text_bytes = corpus.text_bytes(eval_SL)
    rows = corpus.training_rows(spec.optim.global_batch, spec.seed)
    for line in corpus.left_out_messages:
        watch.say(line)
    begun = _start(spec, folder, corpus)
    mesh = run_mesh(spec)
    record.add_columns(**_device_columns(spec), **_data_columns(spec, corpus))
    if jax.process_index() == 0:
        write_atomic(folder / SPEC_FILE, to_json(spec) + "\n")
    record.write(Status.RUNNING)
    watch.saved = lambda: _note_cost(record, watch)
    evaluation = FinalEvaluation(spec, folder, data_hash, mesh, eval_SL, watch)

    def work() -> tuple[Evaluation, dict[str, float | None]]:
        return _evaluate(evaluation, _train(spec, folder, data_hash, mesh, rows, watch, begun).evaluated)

    try:
        with jax.set_mesh(mesh):
            measured, more = retried_without_cache(work, folder, record.attempts, watch.say)
    except Diverged as error:
        record.write(Status.DIVERGED, str(error))
        raise
    record.add_columns(**_loss_columns(measured, text_bytes), **more)
    record.add_cost(watch)
    row = record.write(Status.OK)
    evaluation.forget()
    return row


def _start(spec: RunSpec, folder: Path, corpus: Corpus) -> Weights | None:
    """The trained weights that the run begins with; None if it goes on from a checkpoint, or begins with random ones.

    Raises:
        ValueError, ParentNotReady: the parent or the trained weights do not fit the run.
    """
    if steps_in(folder / CHECKPOINTS_FOLDER):
        return None
    if spec.cell.parent_run_id:
        read_parent(spec, folder, corpus.manifest.data_hash)
        return None
    return starting_weights(spec, corpus.manifest.tokenizer_hash) if spec.start.path else None


def _note_cost(record: Record, watch: Watch) -> None:
    """Writes the cost until a checkpoint into the result, so that it is not lost if the run is killed."""
    record.add_cost(watch)
    record.write(Status.RUNNING)


def _train(
    spec: RunSpec,
    folder: Path,
    data_hash: str,
    mesh: jax.sharding.Mesh,
    rows: TrainingRows,
    watch: Watch,
    begun: Weights | None,
) -> TrainState:
    """The state after the last step, with `mesh` as the ambient mesh.

    Raises:
        Diverged, Preempted: see `train`.
    """
    watch.phase = Phase.NOTHING_NEW  # an earlier try may have left another phase
    checkpoints = Checkpoints(folder / CHECKPOINTS_FOLDER, Identity(spec.spec_hash, data_hash))
    state, step = _starting_state(spec, folder, checkpoints, data_hash, watch, begun)
    metrics = MetricsWriter(folder / METRICS_FOLDER, step) if jax.process_index() == 0 else None
    try:
        return train(state, spec, mesh, rows, checkpoints, metrics, watch)
    finally:
        watch.profiler.close()
        if metrics is not None:
            metrics.close()
        checkpoints.close()


def _evaluate(evaluation: FinalEvaluation, params: Transformer) -> tuple[Evaluation, dict[str, float | None]]:
    """The final loss, and the columns of the exact likelihoods that the spec names; a trunk's segment has none.

    Raises:
        Diverged: a loss is not finite.
        Preempted: an evaluation was asked to stop, and its losses so far are saved.
    """
    spec = evaluation.spec
    measured, more = evaluation.loss(params), dict[str, float | None]()
    for likelihood in () if spec.cell.segment else spec.evaluation.likelihoods:
        if spec.family is Family.ARM:
            more |= likelihood_columns(likelihood, measured.loss, measured.se_data)
        else:
            more |= evaluation.likelihood(params, likelihood)
    return measured, more


def _starting_state(
    spec: RunSpec,
    folder: Path,
    checkpoints: Checkpoints,
    data_hash: str,
    watch: Watch,
    begun: Weights | None,
) -> tuple[TrainState, int]:
    """The state to start from, and its step: the run's newest whole checkpoint, the parent's last, or a new state."""
    fresh = init_state(spec)
    restored, step, messages = checkpoints.restore(fresh)
    for line in messages:
        watch.say(line)
    if restored is not None:
        _check_step(restored, step, folder)
        watch.say(f"resumed at step {step}")
        return restored, step
    if not spec.cell.parent_run_id:
        if spec.start.path:  # the checkpoints that were there when the run began may all be damaged
            begun = begun or starting_weights(spec, open_corpus(spec.data).manifest.tokenizer_hash)
            watch.say(f"begins with the weights of {spec.start.path}")
            return begun_with(fresh, begun), 0
        return fresh, 0
    parent = read_parent(spec, folder, data_hash)
    step, home = parent.schedule.steps, folder.parent / parent.run_id
    state = read_step(home / CHECKPOINTS_FOLDER, step, fresh, Identity(parent.spec_hash, data_hash))
    _check_step(state, step, home)
    watch.say(f"begun at step {step} of {parent.run_id}")
    return state, step


def _check_step(state: TrainState, step: int, folder: Path) -> None:
    """Returns if the state's step is the name of its folder. A seal of format 1 does not guarantee it."""
    name, held = f"{folder / CHECKPOINTS_FOLDER / str(step)}: the state's step", int(state.step)
    require(held == step, name, held, f"{step}: give the folder its name back, or remove it")


def _data_columns(spec: RunSpec, corpus: Corpus) -> dict[str, Any]:
    unique, manifest = float(corpus.unique_tokens), corpus.manifest
    hashes = {"data_hash": manifest.data_hash, "tokenizer_hash": manifest.tokenizer_hash}
    return {**hashes, "unique_tokens": unique, "epochs": spec.train_tokens / unique}


def _device_columns(spec: RunSpec) -> dict[str, str]:
    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "topology": f"{spec.hardware.mesh} {devices[0].platform}, {jax.process_count()} processes",
    }


def _loss_columns(measured: Evaluation, text_bytes: int) -> dict[str, float | None]:
    bits = measured.loss * measured.tokens / math.log(2) / text_bytes if text_bytes else None
    losses = {"loss": measured.loss, "loss_se_mc": measured.se_mc, "loss_se_data": measured.se_data}
    return {**losses, "bits_per_byte": bits, "mc_samples": measured.mc_samples}
