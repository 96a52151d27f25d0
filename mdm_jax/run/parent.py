"""The parent of a run: the same run with fewer steps, which ended while its learning rate was still constant.

Batches, masks and the learning rate are functions of seed and step. So a run that starts from its parent's last
checkpoint takes exactly the steps that it would have taken alone, and ends with the same bits.
"""

import dataclasses

from mdm_jax.files.layout import RESULT_FILE, SPEC_FILE, read_spec
from mdm_jax.files.results import Status, read_result
from mdm_jax.files.storage import Path, inside, is_file
from mdm_jax.spec import RunSpec, ScheduleKind
from mdm_jax.spec.validation import require


class ParentNotReady(OSError):
    """The parent is not finished. The run can start when it is."""


def check_parent(child: RunSpec, parent: RunSpec) -> None:
    """Returns if the child, trained alone, would pass through the parent's last step.

    Raises:
        ValueError: the two differ in more than the length of the schedule; or the parent's learning rate decays; or the
            parent ends at another step than `child.cell.parent_steps`, or after the child's cooldown begins.
    """
    name, taken = f"{child.run_id}: parent {parent.run_id}", child.cell.parent_steps
    same = dataclasses.replace(parent, schedule=child.schedule).spec_hash == child.spec_hash
    require(same, name, "another run", "the same run but for schedule.steps and schedule.cooldown_steps")
    before, after = parent.schedule, child.schedule
    for field in ("kind", "warmup_steps", "lr_final_fraction"):
        theirs, ours = getattr(before, field), getattr(after, field)
        require(theirs == ours, f"{name}: schedule.{field}", theirs, f"{ours}, as in the run that starts from it")
    require(after.kind is ScheduleKind.WSD, f"{name}: schedule.kind", after.kind.value, "wsd: a cosine has no trunk")
    cooldown = before.cooldown_steps
    require(cooldown == 0, f"{name}: schedule.cooldown_steps", cooldown, "0, so that its learning rate is constant")
    last = min(after.steps - after.cooldown_steps, after.steps - 1)
    require(
        before.steps <= last, f"{name}: schedule.steps", before.steps, f"at most {last}, before the cooldown begins"
    )
    require(taken == before.steps, f"{child.run_id}: cell.parent_steps", taken, f"{before.steps}, the parent's steps")


def read_parent(child: RunSpec, folder: Path, data_hash: str) -> RunSpec:
    """The spec of the finished run that the child starts from.

    Args:
        child: a run with `cell.parent_run_id`.
        folder: the child's folder; the parent's folder is next to it.
        data_hash: hash of the child's data.

    Raises:
        ValueError: the parent diverged or failed, was trained on other data, or is not a parent of this child; or its
            files are not those of a run.
        ParentNotReady: the parent has no result, or is running.
        OSError: the parent's files cannot be read now.
    """
    name = child.cell.parent_run_id
    require("/" not in name and name not in (".", ".."), "cell.parent_run_id", name, "the run_id of another run")
    home = inside(folder.parent, name)
    if not is_file(home / RESULT_FILE):
        raise ParentNotReady(f"parent {home} has no result: train it first")
    row = read_result(home / RESULT_FILE)
    if row.status is Status.RUNNING:
        raise ParentNotReady(f"parent {home} is not finished: wait for it, or train it to its end first")
    fine = row.status is Status.OK
    require(fine, f"parent {name}", row.status.value, "ok: correct its cause, remove its folder and train it again")
    same = row.data_hash == data_hash
    require(same, f"parent {name}: data_hash", row.data_hash, f"{data_hash}, that of this run's data")
    parent = read_spec(home)
    require(parent.run_id == name, f"{home / SPEC_FILE}: run_id", parent.run_id, name)
    check_parent(child, parent)
    return parent
