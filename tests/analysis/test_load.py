import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps

from analysis import read_runs
from analysis.runs.columns import NUMERIC, TEXT
from mdm_jax.files.results import RunResult, Status, escaped, result_of, to_csv, write_result
from mdm_jax.files.sealed_json import seal
from mdm_jax.spec import Family, RunSpec, pair, to_json


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A planned pair of which only the ARM has run."""
    mdm = RunSpec()
    arm = pair(mdm, Family.ARM)
    (tmp_path / "plan.jsonl").write_text(to_json(mdm) + "\n" + to_json(arm) + "\n")
    result = result_of(arm, Status.OK, loss=2.5, loss_se_mc=0.0)
    write_result(tmp_path / "runs" / arm.run_id / "result.json", result)
    return tmp_path


def write_run(sweep: Path, name: str, content: str) -> None:
    (sweep / "runs" / name).mkdir(parents=True)
    (sweep / "runs" / name / "result.json").write_text(content)


def test_every_column_of_the_run_table_is_read_with_its_type() -> None:
    runs = sweeps.table(sweeps.rows())
    assert list(runs.columns) == list(RunResult.columns())
    assert all(runs[name].dtype == np.float64 for name in NUMERIC)
    assert set(NUMERIC).isdisjoint(TEXT)
    assert {"loss", "steps", "wall_seconds", "budget"} <= set(NUMERIC)


def test_a_planned_run_without_result_is_a_row_that_says_so(sweep: Path) -> None:
    runs = read_runs(sweep)
    mdm, arm = runs.iloc[0], runs.iloc[1]
    assert (mdm["family"], mdm["status"], mdm["excluded_reason"]) == ("mdm", "missing", "status missing")
    assert mdm["params_non_embedding"] == arm["params_non_embedding"] > 0
    assert (arm["status"], arm["excluded_reason"], arm["loss"]) == ("ok", "", 2.5)


def test_a_plan_of_another_version_still_names_its_runs(sweep: Path) -> None:
    with (sweep / "plan.jsonl").open("a") as file:
        later = {"run_id": "later", "family": "mdm", "budget": 1e12, "schema_version": 99, "model": {"x": 1}}
        file.write(json.dumps(seal(later)) + "\n")
    late = read_runs(sweep).iloc[2]
    assert (late["run_id"], late["family"], late["budget"], late["status"]) == ("later", "mdm", 1e12, "missing")


def test_a_result_that_no_plan_names_is_kept(sweep: Path) -> None:
    write_run(
        sweep, "stray", '{"family": "arm", "params_non_embedding": 1e6, "tokens": 1e8, "loss": 3, "status": "ok"}'
    )
    stray = read_runs(sweep).iloc[2]
    assert (stray["run_id"], stray["excluded_reason"], stray["flops_6nd"]) == ("stray", "", 6e14)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"a": ' * 100_000])
def test_an_unreadable_result_is_a_failed_row(sweep: Path, content: str) -> None:
    write_run(sweep, "broken", content)
    broken = read_runs(sweep).iloc[2]
    assert broken["status"] == "failed"
    assert broken["excluded_reason"].startswith("result.json is damaged: not a JSON object")


def test_a_half_written_plan_and_a_newer_result_are_named(sweep: Path) -> None:
    write_run(sweep, "new", json.dumps(seal({"schema_version": 99})))
    with pytest.raises(ValueError, match=r"new/result.json: schema_version = 99.*update"):
        read_runs(sweep)
    (sweep / "plan.jsonl").write_text((sweep / "plan.jsonl").read_text()[:-40])
    with pytest.raises(ValueError, match=r"plan.jsonl line 2: half-written"):
        read_runs(sweep)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_in_every_format_read_alike(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame(sweeps.rows())
    file = tmp_path / f"runs{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(file)
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    else:
        frame.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",")
    pd.testing.assert_frame_equal(read_runs(file), read_runs(frame), rtol=1e-12)


def test_anybodys_columns_are_mapped_and_large_integers_do_not_overflow(tmp_path: Path) -> None:
    file = tmp_path / "theirs.csv"
    file.write_text("size,D,val,C\n70000000000,9000000000000000,1.5,1e30\n")
    mapping = "params_non_embedding=size, tokens=D, loss=val, budget=C, family==ARM"
    row = read_runs(file, mapping).iloc[0]
    assert (row["family"], row["loss"], row["budget"]) == ("arm", 1.5, 1e30)
    assert row["flops_6nd"] == pytest.approx(6 * 7e10 * 9e15, rel=1e-12)
    assert 6 * 7e10 * 9e15 > 2**63
    pairs = {"params_non_embedding": "size", "tokens": "D", "loss": "val", "family": "=mdm"}
    assert read_runs(file, pairs).iloc[0]["family"] == "mdm"


def test_tokens_follow_from_flops_where_they_are_absent(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("family,params_non_embedding,budget,loss\narm,1e8,6e18,2.5\n")
    assert read_runs(tmp_path / "t.csv").iloc[0]["tokens"] == pytest.approx(1e10)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, r"lacks family, params_non_embedding; it has N, loss, tokens. Map with columns='family=THEIRS,params_"),
        ("params_non_embedding=M,family==arm", "maps params_non_embedding to 'M', which it lacks; it has N, loss"),
        ("size=N", "'size' is no column of the run table"),
        ("loss", "must be OURS=THEIRS pairs"),
    ],
)
def test_missing_columns_are_named_with_the_mapping(columns: str | None, message: str) -> None:
    frame = pd.DataFrame({"N": [1.0], "loss": [2.0], "tokens": [1e9]})
    with pytest.raises(ValueError, match=message):
        read_runs(frame, columns)


def test_bad_losses_and_duplicates_are_left_out_with_a_reason() -> None:
    bad = sweeps.rows(sizes=8, budgets=np.array([1e18]))
    bad[1]["loss"] = float("nan")
    bad[2]["loss"] = -1.0
    bad[3]["status"] = "diverged"
    bad[4]["params_non_embedding"] = 0.0
    bad[5]["run_id"] = bad[0]["run_id"]
    bad[6] = {**bad[0], "run_id": "copy"}
    bad[7]["status"] = "who knows"
    assert list(sweeps.table(bad)["excluded_reason"]) == [
        "", "loss is not a finite number", "loss is not positive", "status diverged", "params is not positive",
        "duplicate run_id", "duplicate of another run", "status who knows",
    ]  # fmt: skip


def test_text_keeps_no_control_characters() -> None:
    row = sweeps.rows(sizes=1)[0] | {"git_sha": "a\x1b[31mb\nc"}
    assert sweeps.table([row])["git_sha"].item() == "a [31mb c"


@pytest.mark.parametrize("content", ["", "a,b\n1\n2,3,4\n", "\x00\xff"])
def test_unreadable_tables_are_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"t\.csv: "):
        read_runs(file)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds neither plan.jsonl nor"):
        read_runs(tmp_path)
    with pytest.raises(ValueError, match="no such file or directory"):
        read_runs(tmp_path / "absent")
    (tmp_path / "runs.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"ends in .xlsx; readable are .csv"):
        read_runs(tmp_path / "runs.xlsx")


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-x", "@A", "'=1", "plain"])
def test_a_formula_in_a_run_table_goes_round_as_text(tmp_path: Path, text: str) -> None:
    row = result_of(pair(RunSpec(), Family.ARM), Status.FAILED, excluded_reason=text, device=text)
    (tmp_path / "runs.csv").write_text(to_csv([row]))
    read = read_runs(tmp_path / "runs.csv")
    assert (read["excluded_reason"].item(), read["device"].item()) == (text, text)
    (tmp_path / "again.csv").write_text(read.map(escaped).to_csv(index=False))  # as the report does
    pd.testing.assert_frame_equal(read_runs(tmp_path / "again.csv"), read)


@pytest.mark.parametrize(
    ("number", "said"),
    [("9" * 5000, r"n\.jsonl: .*line 2: not JSON \(Exceeds the limit"), ("[" * 10**5, r"n\.jsonl: .*line 2: not JSON")],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, number: str, said: str) -> None:
    line = json.dumps({"family": "arm", "params_non_embedding": 1e6, "tokens": 1e8, "loss": 3})
    (tmp_path / "n.jsonl").write_text(line + "\n" + line.replace("3}", number + "}") + "\n")
    with pytest.raises(ValueError, match=said):
        read_runs(tmp_path / "n.jsonl")


def test_an_integer_beyond_every_float_is_infinite_and_left_out(tmp_path: Path) -> None:
    line = json.dumps({"family": "arm", "params_non_embedding": 1e6, "tokens": 1e8, "loss": 3, "seed": 1})
    (tmp_path / "n.jsonl").write_text(line + "\n" + line.replace("3,", "9" * 400 + ",") + "\n")
    assert list(read_runs(tmp_path / "n.jsonl")["excluded_reason"]) == ["", "loss is not a finite number"]
