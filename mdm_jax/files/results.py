"""The run table: one typed row for each run. A run keeps its row as a sealed `result.json`; a sweep's table is CSV."""

import contextlib
import csv
import dataclasses
import enum
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mdm_jax.files.layout import RESULT_FILE
from mdm_jax.files.sealed_json import Newer, seal, unseal
from mdm_jax.files.storage import as_path, free_name, is_file, write_atomic
from mdm_jax.spec import EXACT_LIKELIHOODS, Family, FlopConvention, Likelihood, RunSpec, ScheduleKind
from mdm_jax.spec.counting import count_parameters, evaluated_tokens, train_flops
from mdm_jax.spec.validation import build, require

TABLE_VERSION = 4
"""Version 2 added `group`, `budget_convention` and `flops_chinchilla`, version 4 the columns of exact likelihoods.

A row of an earlier version does not have them.
"""
SEALED_SINCE = 3
"""The first version with a `sha256`. A `result.json` of an earlier version has none and is still read."""

MOST_BYTES = 1 << 20
"""A `result.json` has about 2 KiB. A file that is larger than this is refused as damaged."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")
"""Beginnings of a cell that a spreadsheet takes for a formula (OWASP, "CSV Injection"), and the escaping apostrophe."""

TRUNK_SEGMENT = "undecayed trunk segment"
"""The `excluded_reason` of a trunk's segment: it is in the table, but enters no fit."""

FLOP_COLUMNS = {
    FlopConvention.SMDM_6ND.value: "flops_6nd",
    FlopConvention.WITH_HEAD.value: "flops_with_head",
    FlopConvention.EXACT.value: "flops_exact",
    FlopConvention.CHINCHILLA.value: "flops_chinchilla",
}
"""The run table's column of FLOPs under each convention."""


LIKELIHOOD_COLUMNS = {one.value: (f"loss_{one.value}", f"loss_{one.value}_se_data") for one in EXACT_LIKELIHOODS}
"""The run table's columns of each exact likelihood: the loss, and its error from the choice of the tokens."""


def missing_likelihoods(row: "RunResult", likelihoods: Iterable[Likelihood]) -> tuple[Likelihood, ...]:
    """Those of the exact likelihoods whose columns the row does not have."""
    return tuple(one for one in likelihoods if getattr(row, LIKELIHOOD_COLUMNS[one][0]) is None)


def flop_column(convention: str) -> str:
    """The run table's column for a FLOP convention.

    Raises:
        ValueError: the convention is unknown.
    """
    if convention not in FLOP_COLUMNS:
        raise ValueError(f"convention = {convention!r}: must be one of {', '.join(FLOP_COLUMNS)}")
    return FLOP_COLUMNS[convention]


class Status(enum.StrEnum):
    """The state of a run. All but `running` are final."""

    OK = "ok"
    DIVERGED = "diverged"
    FAILED = "failed"
    RUNNING = "running"


class LossKind(enum.StrEnum):
    """What `loss` is: the ARM's negative log-likelihood, or the MDM's upper bound on it."""

    NLL = "nll"
    NELBO = "nelbo"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One row. Losses are nats per token. `flops_*` and `tokens` are floats because 6 N D overflows int64.

    `budget` is in FLOPs under `budget_convention`; budgets under two conventions cannot be compared. A run that starts
    from a parent's checkpoint has the `steps`, `tokens`, `epochs` and `flops_*` of its whole schedule, because laws
    need them. Its `wall_seconds`, `goodput` and `mfu` cover only its own steps.

    Measured columns:

    - `eval_tokens`: tokens that the final evaluation reads, in whole batches; at most `evaluation.eval_tokens`. A run
      on pairs counts the padding of its rows here and in `tokens`, and its `loss` is that of a scored token.
    - `loss_left_to_right`, `loss_confidence`: the negative log-likelihood of the same tokens by the chain rule, in this
      order of the positions; an ARM's equals its `loss`. Both are exact, so their Monte Carlo error is 0. `_se_data` is
      as `loss_se_data`. None where not evaluated.
    - `bits_per_byte`: bits of all these tokens, divided by the UTF-8 bytes of their text. An EOS costs bits and has no
      bytes. None if the tokens have no text.
    - `wall_seconds`: seconds of all attempts together, each from the moment when jax is loaded. `isoflop.run` counts a
      killed attempt to its end. Without `isoflop.run`, a killed attempt counts until its last checkpoint.
    - `goodput`: the share of `wall_seconds` spent in training steps whose result was kept: those before the attempt's
      last sealed checkpoint. The first step of each attempt is left out, because it compiles. So are the start,
      checkpoints, the evaluation, and steps that a kill has lost.
    - `mfu`: `exact` FLOPs of these steps, divided by the FLOPs that the devices could do in the same time at their
      published dense bfloat16 peak. A float32 run is compared with the same peak. None for a CPU, or a device whose
      peak is not in `accelerators.py`.
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
    loss_left_to_right: float | None = None
    loss_left_to_right_se_data: float | None = None
    loss_confidence: float | None = None
    loss_confidence_se_data: float | None = None
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
    """The columns of a run's row that its spec alone decides."""
    count = count_parameters(spec.model)
    model, optim, schedule = spec.model, spec.optim, spec.schedule
    constant = schedule.kind is ScheduleKind.WSD and not schedule.cooldown_steps
    draws = {} if spec.draws_until_error else {"mc_samples": spec.most_draws}
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
        **draws,
        "objective_variant": spec.loss_label,
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
    """The row of a run, from its spec and the measured columns.

    `mc_samples` is the most draws that the spec allows until they are measured.
    """
    if spec.cell.segment and status is Status.OK:
        measured["excluded_reason"] = TRUNK_SEGMENT
    columns = implied_by(spec) | {"mc_samples": measured.pop("mc_samples", spec.most_draws)}
    return RunResult(**columns, eval_tokens=evaluated_tokens(spec), status=status, **measured)


def contradictions(row: Mapping[str, Any], spec: RunSpec) -> tuple[str, ...]:
    """Names of the columns in which a row contradicts its spec. Columns that the row lacks are not compared."""
    wrong = [name for name, value in implied_by(spec).items() if name in row and row[name] != value]
    if row.get("objective_variant") == spec.objective.former_label:  # rows of older versions have this name
        wrong = [name for name in wrong if name != "objective_variant"]
    read, planned = evaluated_tokens(spec), spec.data.data_hash
    asked = spec.evaluation.eval_tokens  # rows of older versions have this number
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
    """The JSON object of a `result.json`, after the check of its seal and version.

    Raises:
        Damaged: the file is too large or not a JSON object, or its seal does not match the content.
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
        ValueError: the file (named) is damaged or is not a run's result.
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
    """Renames a run's `result.json` if it is damaged or belongs to another run, so that the run is repeated.

    Returns:
        One line that says what was done; empty if the file is usable or absent.

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
    with contextlib.suppress(FileNotFoundError):  # another process of the same run has renamed it
        path.rename(kept)
    return f"{wrong}: kept as {kept.name}; the run goes on from its newest checkpoint, or begins again"


def to_csv(rows: Iterable[RunResult]) -> str:
    """The run table as CSV: a header and one line for each run. An unknown value is an empty field."""
    return csv_text([RunResult.columns(), *(dataclasses.asdict(row).values() for row in rows)])


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of cells as CSV, each cell `escaped`. None is an empty field."""
    return "".join(_csv_line(map(escaped, cells)) for cells in lines)


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # this terminator makes every Python quote \r and \n
    return text.getvalue().removesuffix("\r\n") + "\n"


def escaped(value: Any) -> Any:
    """A cell for CSV: text that a spreadsheet would run as a formula gets an apostrophe in front.

    Text that begins with an apostrophe gets a second one, so that `unescaped` returns the original text.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def unescaped(text: str) -> str:
    """The original text of a cell that `escaped` wrote; any other text is returned unchanged."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA_STARTS) else text
