"""The run table: one typed row a run, as a sealed `result.json` in its directory and as CSV for a whole sweep."""

import contextlib
import csv
import dataclasses
import enum
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mdm_jax.counting import count_parameters, evaluated_tokens, train_flops
from mdm_jax.files.sealed_json import Newer, seal, unseal
from mdm_jax.files.storage import as_path, free_name, is_file, write_atomic
from mdm_jax.layout import RESULT_FILE
from mdm_jax.spec import Family, FlopConvention, RunSpec, ScheduleKind
from mdm_jax.spec.validation import build, require

TABLE_VERSION = 3
"""2 added `group`, `budget_convention` and `flops_chinchilla`, which are unknown in a row of version 1."""
SEALED_SINCE = 3
"""A `result.json` of an earlier version carries no `sha256`; it is read as it is."""

MOST_BYTES = 1 << 20
"""A `result.json` has 2 KiB; a larger file is none."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")
"""What makes a cell a formula (OWASP, "CSV Injection"), and the apostrophe that keeps it from being one."""

TRUNK_SEGMENT = "undecayed trunk segment"
"""Why a segment, which is in the table as every run is, enters no fit."""

FLOP_COLUMNS = {
    FlopConvention.SMDM_6ND.value: "flops_6nd",
    FlopConvention.WITH_HEAD.value: "flops_with_head",
    FlopConvention.EXACT.value: "flops_exact",
    FlopConvention.CHINCHILLA.value: "flops_chinchilla",
}
"""The run table's column of FLOPs under each convention."""


def flop_column(convention: str) -> str:
    """The run table's column for a FLOP convention.

    Raises:
        ValueError: no such convention.
    """
    if convention not in FLOP_COLUMNS:
        raise ValueError(f"convention = {convention!r}: must be one of {', '.join(FLOP_COLUMNS)}")
    return FLOP_COLUMNS[convention]


class Status(enum.StrEnum):
    """How a run stands; all but `running` are final."""

    OK = "ok"
    DIVERGED = "diverged"
    FAILED = "failed"
    RUNNING = "running"


class LossKind(enum.StrEnum):
    """A likelihood (ARM) and a bound on one (MDM) are never mixed unlabelled."""

    NLL = "nll"
    NELBO = "nelbo"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One row. Losses are nats per token; `flops_*` and `tokens` are floats because 6 N D overflows int64.

    `budget` is in FLOPs under `budget_convention`: budgets of two conventions are different quantities. A run that
    started from a parent's checkpoint has the `steps`, `tokens`, `epochs` and `flops_*` of its whole schedule, as if it
    had been trained alone, which laws need; its `wall_seconds`, `goodput` and `mfu` are of what it trained itself.

    What was measured:

    - `eval_tokens`: tokens that the final evaluation reads, in whole batches; at most `evaluation.eval_tokens`.
    - `bits_per_byte`: bits of all these tokens over the UTF-8 bytes of the text that they stand for. An EOS costs bits
      and stands for no byte. None where the tokens stand for no text.
    - `wall_seconds`: of all attempts together, from the time when each had loaded jax. `isoflop.run` counts an attempt
      that was killed to its end; without it, what such an attempt did after its last checkpoint is not counted.
    - `goodput`: the share of `wall_seconds` in training steps whose result was kept, that is, until the attempt's last
      checkpoint. The first step of an attempt, which compiles, is not among them.
    - `mfu`: `exact` FLOPs of these steps over the devices' published dense bfloat16 peak in the same time, also for a
      run that computes in float32. None for a CPU or a device whose peak is not in `accelerators.py`.
    """

    run_id: str
    family: Family
    params: float
    params_non_embedding: float
    n_layers: int
    d_model: int
    n_heads: int
    ffn: int
    seq_len: int
    vocab_size: int
    tokens: float
    unique_tokens: float | None = None
    epochs: float | None = None
    budget: float | None = None
    budget_convention: str = ""
    group: str = ""
    flops_6nd: float
    flops_with_head: float
    flops_exact: float
    flops_chinchilla: float | None = None
    loss: float | None = None
    loss_se_mc: float | None = None
    loss_se_data: float | None = None
    loss_kind: LossKind
    bits_per_byte: float | None = None
    mc_samples: int
    eval_tokens: int
    objective_variant: str
    lr: float
    lr_final_fraction: float
    batch_size: int
    warmup_steps: int
    steps: int
    seed: int
    schedule: str
    parent_run_id: str = ""
    status: Status
    excluded_reason: str = ""
    schema_version: int = TABLE_VERSION
    tokenizer_hash: str = ""
    data_hash: str = ""
    spec_hash: str = ""
    git_sha: str = ""
    versions: str = ""
    device: str = ""
    topology: str = ""
    attempts: int = 1
    goodput: float | None = None
    mfu: float | None = None
    peak_memory_bytes: float | None = None
    wall_seconds: float | None = None

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(f.name for f in dataclasses.fields(cls))


def implied_by(spec: RunSpec) -> dict[str, Any]:
    """The columns of a run's row that follow from its spec, whatever came of the run."""
    count = count_parameters(spec.model)
    model, optim, schedule = spec.model, spec.optim, spec.schedule
    constant = schedule.kind is ScheduleKind.WSD and not schedule.cooldown_steps
    return {
        "run_id": spec.run_id,
        "family": spec.family,
        "params": float(count.total),
        "params_non_embedding": float(count.non_embedding),
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "ffn": model.d_ffn,
        "seq_len": spec.data.seq_len,
        "vocab_size": model.vocab_size,
        "tokens": float(spec.train_tokens),
        "budget": spec.cell.budget,
        "budget_convention": spec.cell.convention.value if spec.cell.budget is not None else "",
        "group": spec.cell.group,
        "flops_6nd": float(train_flops(spec, FlopConvention.SMDM_6ND)),
        "flops_with_head": float(train_flops(spec, FlopConvention.WITH_HEAD)),
        "flops_exact": float(train_flops(spec, FlopConvention.EXACT)),
        "flops_chinchilla": float(train_flops(spec, FlopConvention.CHINCHILLA)),
        "loss_kind": LossKind.NLL if spec.family is Family.ARM else LossKind.NELBO,
        "mc_samples": 1 if spec.family is Family.ARM else spec.evaluation.mc_samples,
        "objective_variant": spec.objective.label,
        "lr": optim.lr_peak,
        "lr_final_fraction": 1.0 if constant else schedule.lr_final_fraction,
        "batch_size": optim.global_batch,
        "warmup_steps": schedule.warmup_steps,
        "steps": schedule.steps,
        "seed": spec.seed,
        "schedule": schedule.kind.value,
        "parent_run_id": spec.cell.parent_run_id,
        "spec_hash": spec.spec_hash,
    }


def result_of(spec: RunSpec, status: Status, **measured: Any) -> RunResult:
    """The row of a run: what its spec says, and what was measured."""
    if spec.cell.segment and status is Status.OK:
        measured["excluded_reason"] = TRUNK_SEGMENT
    return RunResult(**implied_by(spec), eval_tokens=evaluated_tokens(spec), status=status, **measured)


def contradictions(row: Mapping[str, Any], spec: RunSpec) -> tuple[str, ...]:
    """Names of the columns in which a row is not what its spec implies; a column that the row lacks is none."""
    wrong = [name for name, value in implied_by(spec).items() if name in row and row[name] != value]
    read, planned = evaluated_tokens(spec), spec.data.data_hash
    asked = spec.evaluation.eval_tokens  # which rows of older versions hold
    if row.get("eval_tokens", read) not in (read, asked):
        wrong.append("eval_tokens")
    if planned and row.get("data_hash", "") not in ("", planned):
        wrong.append("data_hash")
    if spec.cell.segment and row.get("status") == Status.OK and row.get("excluded_reason") != TRUNK_SEGMENT:
        wrong.append("excluded_reason")
    return tuple(wrong)


def write_result(path: Any, row: RunResult) -> None:
    """Writes `result.json` atomically, sealed and of the newest version."""
    tree = dataclasses.asdict(dataclasses.replace(row, schema_version=TABLE_VERSION))
    write_atomic(path, json.dumps(seal(tree), indent=1, allow_nan=False) + "\n")


def result_tree(path: Any) -> dict[str, Any]:
    """The JSON object of a `result.json`, whole and of a known version.

    Raises:
        Damaged: it is no JSON object, it is larger than a row can be, or its seal does not fit.
        Newer: a newer version of mdm-jax wrote the file (named).
    """
    file = as_path(path)
    tree = unseal(file.read_bytes() if file.stat().length <= MOST_BYTES else b"", SEALED_SINCE)
    version = tree.get("schema_version", TABLE_VERSION)
    if isinstance(version, int) and version > TABLE_VERSION:
        raise Newer(f"{path}: schema_version = {version}, and this mdm-jax knows {TABLE_VERSION}: update it")
    return tree


def read_result(path: Any) -> RunResult:
    """The row of a `result.json`.

    Raises:
        Newer: a newer version of mdm-jax wrote the file (named).
        ValueError: the file (named) is not one, or is damaged.
    """
    try:
        tree = result_tree(path)
        version = tree.get("schema_version")
        require(version in range(1, TABLE_VERSION + 1), "schema_version", version, f"1 to {TABLE_VERSION}")
        return build(RunResult, tree)
    except Newer:
        raise
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a run's result ({error})") from None


def set_aside_unusable(folder: Any) -> str:
    """Renames a run's `result.json` that is damaged or another run's, so that the run is done again.

    Returns:
        What was done, in one line; empty where the file is usable or absent.

    Raises:
        Newer: a newer version of mdm-jax wrote it.
        OSError: it cannot be read or renamed now.
    """
    path = as_path(folder) / RESULT_FILE
    if not is_file(path):
        return ""
    try:
        run_id = read_result(path).run_id
        wrong = f"{path}: the result of another run, {run_id}" if run_id != path.parent.name else ""
    except Newer:
        raise
    except ValueError as error:
        wrong = str(error)
    if not wrong:
        return ""
    kept = free_name(path, "damaged")
    with contextlib.suppress(FileNotFoundError):  # another process of the same run was quicker
        path.rename(kept)
    return f"{wrong}: kept as {kept.name}; the run goes on from its newest checkpoint, or begins again"


def to_csv(rows: Iterable[RunResult]) -> str:
    """The run table as CSV: a header and one line a run; an unknown number is an empty field."""
    lines = [RunResult.columns(), *(map(escaped, dataclasses.asdict(row).values()) for row in rows)]
    return "".join(map(_csv_line, lines))


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # quotes cells that hold either; Python 3.13 always does
    return text.getvalue().removesuffix("\r\n") + "\n"


def escaped(value: Any) -> Any:
    """A cell for CSV: text that a spreadsheet would run as a formula gets an apostrophe in front.

    Text that begins with an apostrophe gets one more, so that `unescaped` gives back every text as it was.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def unescaped(text: str) -> str:
    """The text of a CSV cell that `escaped` wrote, and any other text as it is."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA_STARTS) else text
