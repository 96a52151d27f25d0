"""The part of a run's spec that decides a compiled program. Runs with an equal part share the program.

Each function returns the spec with all other fields at a fixed value. The program must not read those fields: it gets
the seed and the learning rate as arguments, and takes the number of rows from the shapes of its arguments. A field that
is new in the spec counts as part of every program until it is fixed here, which costs compilations and nothing else.
"""

from dataclasses import replace
from typing import Any

from mdm_jax.spec.fine_tuning_spec import StartSpec
from mdm_jax.spec.kinds import Family
from mdm_jax.spec.objective_spec import ObjectiveSpec
from mdm_jax.spec.run_spec import CellSpec, EvaluationSpec, OptimSpec, RunSpec, ScheduleSpec, pair


def step_program(spec: RunSpec) -> RunSpec:
    """What decides the train step. The kind of the schedule is not in it, because the learning rate brings it."""
    optim = replace(spec.optim, lr_peak=OptimSpec().lr_peak)
    return replace(spec, **_of_no_run(spec), optim=optim, evaluation=EvaluationSpec(batch=spec.evaluation.batch))


def evaluation_program(spec: RunSpec) -> RunSpec:
    """What decides the program of the final evaluation, which is the same for every batch of the training."""
    evaluation = replace(spec.evaluation, eval_tokens=EvaluationSpec().eval_tokens, likelihoods=(), max_se=0.0)
    return replace(spec, **_of_no_training(spec), evaluation=evaluation)


def state_program(spec: RunSpec) -> RunSpec:
    """What decides the state before step 0: the shapes of the weights, the mesh, and whether an average is kept.

    Both families begin with the same weights.
    """
    spec = pair(spec, Family.MDM) if spec.family is Family.ARM else spec
    fixed = _of_no_training(spec)
    fixed["optim"] = replace(fixed["optim"], ema_decay=0.5 if spec.optim.ema_decay else 0.0)
    fixed["evaluation"] = EvaluationSpec(batch=2 * spec.hardware.row_shards)
    fixed["model"] = replace(spec.model, dropout=0.0)
    if not spec.model.mask_column:  # which only some objectives allow
        fixed["objective"] = ObjectiveSpec()
    return replace(spec, **fixed)


def _of_no_run(spec: RunSpec) -> dict[str, Any]:
    """Fixed values for the fields that say where, how long and with which random numbers a run goes."""
    return {
        "data": replace(spec.data, directory="", data_hash=""),
        "schedule": ScheduleSpec(),
        "hardware": replace(spec.hardware, log_every=1, checkpoint_every=1),
        "cell": CellSpec(),
        "seed": 0,
        "start": StartSpec(),
    }


def _of_no_training(spec: RunSpec) -> dict[str, Any]:
    """Fixed values for the fields that only a run or its training reads."""
    fixed = _of_no_run(spec)
    fixed["optim"] = OptimSpec(global_batch=2 * spec.hardware.row_shards)
    fixed["hardware"] = replace(fixed["hardware"], microbatches=1)
    return fixed
