"""The run table and the files under it: what is written is read back, and a broken file is named."""

import csv
import dataclasses
import io
import json

import pytest

from mdm_jax.files.results import (
    LIKELIHOOD_COLUMNS,
    TABLE_VERSION,
    LossKind,
    RunResult,
    Status,
    missing_likelihoods,
    read_result,
    result_of,
    to_csv,
    unescaped,
    write_result,
)
from mdm_jax.files.sealed_json import seal
from mdm_jax.files.storage import inside, write_atomic
from mdm_jax.spec import (
    EXACT_LIKELIHOODS,
    CellSpec,
    Family,
    FlopConvention,
    Likelihood,
    RunSpec,
    ScheduleSpec,
    pair,
)

DESIGNED = """
run_id family params params_non_embedding n_layers d_model n_heads ffn seq_len vocab_size tokens unique_tokens epochs
budget budget_convention group flops_6nd flops_with_head flops_exact flops_chinchilla
loss loss_se_mc loss_se_data loss_kind
loss_left_to_right loss_left_to_right_se_data loss_confidence loss_confidence_se_data
bits_per_byte mc_samples eval_tokens
objective_variant lr lr_final_fraction batch_size warmup_steps steps seed schedule parent_run_id status excluded_reason
schema_version tokenizer_hash data_hash spec_hash git_sha versions device topology attempts goodput mfu
peak_memory_bytes wall_seconds
"""


@pytest.fixture
def row() -> RunResult:
    return result_of(RunSpec(), Status.OK, loss=2.5, loss_se_mc=0.01, loss_se_data=0.1, epochs=0.5)


def test_the_columns_are_the_contract() -> None:
    assert set(RunResult.columns()) == set(DESIGNED.split())


def test_a_row_is_read_back_as_written(tmp_path, row: RunResult) -> None:
    write_result(tmp_path / "deep" / "result.json", row)
    assert read_result(tmp_path / "deep" / "result.json") == row


def test_a_row_of_the_first_version_still_reads(tmp_path, row: RunResult) -> None:
    tree = dataclasses.asdict(row) | {"schema_version": 1}
    for name in ("group", "budget_convention", "flops_chinchilla"):
        del tree[name]
    (tmp_path / "result.json").write_text(json.dumps(tree))
    old = read_result(tmp_path / "result.json")
    assert (old.group, old.budget_convention, old.flops_chinchilla, old.loss) == ("", "", None, 2.5)


def test_a_row_from_before_the_likelihoods_lacks_them_all(tmp_path, row: RunResult) -> None:
    tree = dataclasses.asdict(row) | {"schema_version": 3}
    for names in LIKELIHOOD_COLUMNS.values():
        for name in names:
            del tree[name]
    (tmp_path / "result.json").write_text(json.dumps(seal(tree)))
    old = read_result(tmp_path / "result.json")
    assert old == dataclasses.replace(row, schema_version=3)
    assert missing_likelihoods(old, EXACT_LIKELIHOODS) == EXACT_LIKELIHOODS
    added = dataclasses.replace(old, loss_confidence=2.25, loss_confidence_se_data=0.125)
    write_result(tmp_path / "result.json", added)
    assert read_result(tmp_path / "result.json") == dataclasses.replace(added, schema_version=TABLE_VERSION)
    assert missing_likelihoods(added, EXACT_LIKELIHOODS) == (Likelihood.LEFT_TO_RIGHT,)


def test_the_cell_is_in_the_row() -> None:
    cell = CellSpec(budget=1e12, convention=FlopConvention.EXACT, group="fixed LR")
    row = result_of(RunSpec(cell=cell), Status.OK)
    assert (row.budget, row.budget_convention, row.group) == (1e12, "exact", "fixed LR")
    assert result_of(RunSpec(), Status.OK).budget_convention == ""


def test_flops_of_a_long_run_do_not_overflow(tmp_path) -> None:
    long = dataclasses.replace(RunSpec(), schedule=ScheduleSpec(steps=1 << 31, warmup_steps=0))
    flops = result_of(long, Status.OK).flops_6nd
    assert flops == 6 * 131392 * (1 << 31) * 16 * 64
    assert flops > 2**60


def test_the_loss_of_each_family_is_labelled() -> None:
    arm = result_of(pair(RunSpec(), Family.ARM), Status.OK, loss=2.0)
    assert (arm.loss_kind, arm.mc_samples) == (LossKind.NLL, 1)
    assert result_of(RunSpec(), Status.OK, loss=2.0).loss_kind is LossKind.NELBO


def test_csv_holds_every_row_and_leaves_the_unknown_empty(row: RunResult) -> None:
    lost = result_of(RunSpec(seed=1), Status.DIVERGED, excluded_reason='loss, "not" finite\nat step 3')
    rows = list(csv.DictReader(io.StringIO(to_csv([row, lost]))))
    assert [r["status"] for r in rows] == ["ok", "diverged"]
    assert rows[1]["loss"] == ""
    assert rows[1]["excluded_reason"] == lost.excluded_reason
    assert float(rows[0]["loss"]) == 2.5
    assert tuple(rows[0]) == RunResult.columns()


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'", "'=1", "''", "＝1", "plain", "", " =1", "a=1", "a'"]


def test_no_cell_of_a_csv_is_a_formula_and_every_text_is_read_back(row: RunResult) -> None:
    rows = [dataclasses.replace(row, excluded_reason=text, group=text) for text in FORMULAS]
    table = list(csv.DictReader(io.StringIO(to_csv(rows), newline="")))
    assert [unescaped(cells["excluded_reason"]) for cells in table] == FORMULAS
    assert [unescaped(cells["group"]) for cells in table] == FORMULAS
    for cells in table:
        assert not cells["excluded_reason"].startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    assert all(float(cells["loss"]) == 2.5 for cells in table)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema_version": 99}', '{"schema_version": 1, "loss": NaN}', "[" * 100_000]
)
def test_a_broken_result_is_named(tmp_path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"result\.json: not a run's result"):
        read_result(path)


def test_a_result_with_a_foreign_column_is_refused(tmp_path, row: RunResult) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(seal({**dataclasses.asdict(row), "los": 1.0})))
    with pytest.raises(ValueError, match="unknown key los: did you mean loss"):
        read_result(path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch) -> None:
    target = tmp_path / "plan.jsonl"
    write_atomic(target, "old")

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.jsonl"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "gs://b/x", "a\0b", "..\\x"])
def test_names_from_files_stay_inside(tmp_path, name: str) -> None:
    with pytest.raises(ValueError, match="must stay inside"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b.bin") == tmp_path / "a" / "b.bin"
