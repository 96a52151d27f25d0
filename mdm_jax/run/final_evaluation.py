"""The evaluation of a trained run: its loss, and exact likelihoods of the same tokens, each interruptible.

Each of them has a file in the run's folder with its losses so far, which is saved every few seconds. The next attempt
goes on from there, and ends with the same bits.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from mdm_jax.data.corpus import Corpus
from mdm_jax.devices.sharding import as_first_process
from mdm_jax.evaluate.likelihood.rows import row_losses
from mdm_jax.evaluate.nelbo import Evaluation, evaluate, usable_rows
from mdm_jax.evaluate.partial_losses import PARTIAL_FILE, PARTIAL_FILES, PartialLosses, partial_file
from mdm_jax.files.layout import CHECKPOINTS_FOLDER
from mdm_jax.files.results import LIKELIHOOD_COLUMNS
from mdm_jax.files.storage import Path
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import Likelihood, RunSpec
from mdm_jax.train.loop import Diverged, Preempted, Watch
from mdm_jax.train.seal import SEAL_FILE
from mdm_jax.train.stop import Phase

Finished = Callable[[np.ndarray], None]
Measured = TypeVar("Measured")


def evaluated_rows(spec: RunSpec, corpus: Corpus) -> Int[np.ndarray, "S L"]:
    """The rows of the validation split that the run is evaluated on.

    Raises:
        ValueError: the split is too small, or the rows do not fill one batch.
    """
    rows_SL = corpus.evaluation_rows(spec.evaluation.eval_tokens)
    return rows_SL[: usable_rows(spec, len(rows_SL))]


def likelihood_columns(likelihood: Likelihood, loss: float, se_data: float | None) -> dict[str, float | None]:
    """The run table's columns of an exact likelihood. An ARM's are its loss, the likelihood in its only order."""
    return dict(zip(LIKELIHOOD_COLUMNS[likelihood], (loss, se_data), strict=True))


@dataclass(frozen=True)
class FinalEvaluation:
    """The evaluation of the weights at the run's last step, with `mesh` as the ambient mesh.

    Attributes:
        spec: the run.
        folder: the run's folder.
        data_hash: hash of the run's data.
        mesh: the ambient mesh.
        rows_SL: tokens to evaluate, in whole batches.
        watch: it is asked whether to stop, and gets the phase and the messages.
    """

    spec: RunSpec
    folder: Path
    data_hash: str
    mesh: Mesh
    rows_SL: np.ndarray
    watch: Watch

    def loss(self, params: Transformer) -> Evaluation:
        """The run's loss.

        Raises:
            Diverged: it is not finite.
            Preempted: the evaluation was asked to stop. Its losses so far are saved.
        """

        def compute(known: np.ndarray, finished: Finished) -> Evaluation:
            return evaluate(params, self.spec, self.rows_SL, self.mesh, known, finished)

        more = bool(self.spec.evaluation.likelihoods)
        measured = self._interruptible(compute, "evaluation", self._saved(PARTIAL_FILE), keep=more)
        if not math.isfinite(measured.loss):
            self.forget()
            raise Diverged(self.spec.schedule.steps, "final loss")
        return measured

    def likelihood(self, params: Transformer, likelihood: Likelihood) -> dict[str, float | None]:
        """The columns of an exact likelihood of an MDM: the loss in nats per token, and its error over rows.

        Raises:
            Diverged: the loss is not finite.
            Preempted: see `loss`.
        """
        spec = self.spec

        def compute(known: np.ndarray, finished: Finished) -> np.ndarray:
            settings = {"known": known, "finished": finished, "batch": spec.evaluation.batch}
            return row_losses(params, spec.model, self.rows_SL, likelihood, self.mesh, **settings)

        saved = self._saved(partial_file(likelihood))
        loss_S = self._interruptible(compute, f"{likelihood.value} evaluation", saved, keep=True).astype(np.float64)
        loss, se_data = float(loss_S.mean()), float(loss_S.std(ddof=1) / len(loss_S) ** 0.5)
        if not math.isfinite(loss):
            self.forget()
            raise Diverged(spec.schedule.steps, f"{likelihood.value} loss")
        return likelihood_columns(likelihood, loss, se_data)

    def forget(self) -> None:
        """Removes the files of losses so far."""
        if jax.process_index() == 0:
            for name in PARTIAL_FILES:
                (self.folder / name).unlink(missing_ok=True)

    def _interruptible(
        self, compute: Callable[[np.ndarray, Finished], Measured], name: str, saved: PartialLosses, keep: bool
    ) -> Measured:
        """What `compute` returns for the losses of an earlier attempt and a function that saves new ones.

        Args:
            compute: the evaluation.
            name: its name in messages.
            saved: the file of its losses.
            keep: save the losses at the end too, because another evaluation follows that may be interrupted.
        """
        first, watch, batch = jax.process_index() == 0, self.watch, self.spec.evaluation.batch
        known = as_first_process(saved.read() if first else None)
        done, latest = len(known) // batch, known
        watch.say(f"{name} resumed at batch {done}" if done else f"{name} begins")

        def finished(losses: np.ndarray) -> None:
            nonlocal latest
            latest, stop = losses, watch.asked_to_stop()
            if first and (stop or saved.due):
                saved.write(losses)
            if stop:
                raise Preempted(f"batch {len(losses) // batch} of the {name}")

        watch.phase = Phase.EVALUATING
        measured = compute(known, finished)
        if first and keep and len(latest) > len(known):
            saved.write(latest)
        return measured

    def _saved(self, name: str) -> PartialLosses:
        """The file of this name with losses of the last checkpoint."""
        newest = self.folder / CHECKPOINTS_FOLDER / str(self.spec.schedule.steps) / SEAL_FILE
        seal = newest.read_text() if jax.process_index() == 0 else ""
        parts = [self.spec.spec_hash, self.data_hash, seal]
        parts += [name] if name != PARTIAL_FILE else []  # a file of an earlier version stays usable
        belongs_to = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return PartialLosses(self.folder / name, belongs_to, self.spec.evaluation.batch)
