"""The part of a run's spec that decides a compiled program. Runs with an equal part share the program.

Each function returns the spec with all other fields at a fixed value. The program must not read those fields: it gets
the seed and the learning rate as arguments, and takes the number of rows from the shapes of its arguments. A field that
is new in the spec counts as part of every program until it is fixed here, which costs compilations and nothing else.
"""

from dataclasses import replace
from typing import Any

from mdm_jax.spec.fine_tuning_spec import StartSpec
from mdm_jax.spec.kinds import Family, Remat
from mdm_jax.spec.objective_spec import ObjectiveSpec
from mdm_jax.spec.run_spec import CellSpec, EvaluationSpec, OptimSpec, RunSpec, ScheduleSpec, pair


def step_program(spec: RunSpec) -> RunSpec:
    """What decides the train step. The schedule does not: its numbers and its kind come with the learning rate."""
    optim = replace(spec.optim, lr_peak=OptimSpec().lr_peak)
    return replace(spec, **_fixed_run_fields(spec), optim=optim, evaluation=_fixed_evaluation(spec))


def evaluation_program(spec: RunSpec) -> RunSpec:
    """What decides the program of the final evaluation."""
    evaluation = replace(spec.evaluation, eval_tokens=EvaluationSpec().eval_tokens, likelihoods=(), max_se=0.0)
    return replace(spec, **_fixed_training_fields(spec), evaluation=evaluation)


def state_program(spec: RunSpec) -> RunSpec:
    """What decides the state before step 0: the shapes of the weights, the mesh, and whether an average is kept.

    Both families begin with the same weights.
    """
    spec = pair(spec, Family.MDM) if spec.family is Family.ARM else spec
    fixed = _fixed_training_fields(spec)
    fixed["optim"] = replace(fixed["optim"], ema_decay=0.5 if spec.optim.ema_decay else 0.0)
    fixed["evaluation"] = _fixed_evaluation(spec)
    fixed["model"] = replace(spec.model, dropout=0.0, float32_residual=False)
    if not spec.model.mask_column:  # the default objective does not allow such a column
        fixed["objective"] = ObjectiveSpec()
    return replace(spec, **fixed)


def _fixed_run_fields(spec: RunSpec) -> dict[str, Any]:
    """Fixed values for the fields that say where, how long and with which random numbers a run goes."""
    return {
        "data": replace(spec.data, directory="", data_hash=""),
        "schedule": ScheduleSpec(),
        "hardware": replace(spec.hardware, log_every=1, checkpoint_every=1),
        "cell": CellSpec(),
        "seed": 0,
        "start": StartSpec(),
    }


def _fixed_training_fields(spec: RunSpec) -> dict[str, Any]:
    """Fixed values for `_fixed_run_fields`, and for the fields that only the training reads."""
    fixed = _fixed_run_fields(spec)
    fixed["optim"] = OptimSpec(global_batch=2 * spec.hardware.row_shards)
    fixed["hardware"] = replace(fixed["hardware"], microbatches=1, remat_layers=0, remat_rest=Remat.NONE)
    return fixed


def _fixed_evaluation(spec: RunSpec) -> EvaluationSpec:
    """The evaluation of programs that do not evaluate: the smallest batch that the mesh of the run can split."""
    return EvaluationSpec(batch=2 * spec.hardware.row_shards)
