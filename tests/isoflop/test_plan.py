import dataclasses
import functools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import on_terminal, one_line
from imitated_runs import manifest_of

from isoflop.grid import make_grid
from isoflop.plan.__main__ import main
from isoflop.planfile import read_plan, write_plan
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.config import default_run
from mdm_jax.data.manifest import write_manifest
from mdm_jax.files.results import Status, result_of, write_result
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.spec import (
    ComputeDtype,
    Family,
    FlopConvention,
    HardwareSpec,
    RunSpec,
    TokenizerKind,
    to_json,
)
from mdm_jax.spec.counting import count_parameters, train_flops
from mdm_jax.spec.validation import build, to_dict

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "experiments/quickstart.py")
PAPER = str(ROOT / "experiments/smdm_isoflop.py")


def two_runs() -> tuple[RunSpec, ...]:
    curves = (CurveSpec(Family.MDM, 1e12, ("2x48", "2x64")),)
    return make_grid(RunSpec(), SweepSpec(curves=curves), HardwareSpec())


def give_result(directory: Path, run: RunSpec) -> None:
    write_result(directory / "runs" / run.run_id / "result.json", result_of(run, Status.OK))


def edited(run: RunSpec, **changes: object) -> str:
    """The run's line with other content, under a seal that fits it."""
    return json.dumps(seal(unseal(to_json(run), 1) | changes)) + "\n"


def test_plan_is_replaced_while_nothing_has_run(tmp_path) -> None:
    first, second = two_runs()
    assert write_plan(tmp_path, [first]).added == 1
    assert write_plan(tmp_path, [second]).runs == (second,)
    assert read_plan(tmp_path) == (second,)


def test_plan_only_grows_once_runs_exist(tmp_path) -> None:
    first, second = two_runs()
    write_plan(tmp_path, [first])
    before = (tmp_path / "plan.jsonl").read_bytes()
    give_result(tmp_path, first)
    with pytest.raises(ValueError, match=rf"{first.run_id} of the existing plan is not in the new one.*--out"):
        write_plan(tmp_path, [second])
    assert (tmp_path / "plan.jsonl").read_bytes() == before
    written = write_plan(tmp_path, [second, first])
    assert (written.runs, written.added) == ((first, second), 1)
    assert (tmp_path / "plan.jsonl").read_bytes() == before + to_json(second).encode() + b"\n"


def test_changed_corpus_is_refused_once_runs_exist(tmp_path) -> None:
    def planned(digest: str) -> RunSpec:
        return dataclasses.replace(RunSpec(), data=dataclasses.replace(RunSpec().data, data_hash=digest))

    write_plan(tmp_path, [planned("a" * 64)])
    give_result(tmp_path, RunSpec())
    with pytest.raises(ValueError, match=r"the corpus in .* has changed"):
        write_plan(tmp_path, [planned("b" * 64)])


@pytest.mark.parametrize("keep", [0, 1, 300, -2])
def test_half_written_plan_is_named_and_repaired(tmp_path, keep: int) -> None:
    first, second = two_runs()
    path = tmp_path / "plan.jsonl"
    write_plan(tmp_path, [first, second])
    whole = path.read_text()
    give_result(tmp_path, first)
    path.write_text(whole.split("\n")[0] + "\n" + (whole.split("\n")[1][:keep] or "{"))
    with pytest.raises(ValueError, match=r"plan\.jsonl line 2: half-written or damaged.*isoflop\.plan"):
        read_plan(tmp_path)
    assert write_plan(tmp_path, [first, second]).repaired == 1
    assert path.read_text() == whole


@pytest.mark.parametrize(
    ("edit", "said"), [({"schema_version": 99}, "line 1: schema_version = 99"), ({"seed": 9}, "line 1: run_id")]
)
def test_newer_or_edited_plan_is_refused(tmp_path, edit: dict, said: str) -> None:
    (tmp_path / "plan.jsonl").write_text(edited(RunSpec(), **edit))
    with pytest.raises(ValueError, match=said):
        read_plan(tmp_path)


@pytest.mark.parametrize("started", [False, True])
def test_plan_of_a_newer_version_is_never_replaced(tmp_path, capsys, started: bool) -> None:
    newer = edited(RunSpec(), schema_version=3, invented_later=1)
    (tmp_path / "plan.jsonl").write_text(newer)
    if started:
        give_result(tmp_path, RunSpec())
    error = one_line(main, ["--config", QUICKSTART, "--out", str(tmp_path)], capsys)
    assert "line 1: schema_version = 3, and this mdm-jax knows 2" in error
    assert (tmp_path / "plan.jsonl").read_text() == newer
    with pytest.raises(ValueError, match="a newer one wrote the plan; update it"):
        read_plan(tmp_path)


def test_missing_and_empty_plans_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no such file: write it with python -m isoflop\.plan"):
        read_plan(tmp_path)
    (tmp_path / "plan.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        read_plan(tmp_path)


# the command


def planner(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, *options.pop("python", ()), "-m", "isoflop.plan", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)


def test_command_loads_no_jax_and_answers_at_once(tmp_path) -> None:
    def cpu_seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert planner(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # It waits for nothing, so these are seconds of the wall on a machine that is not busy.
    assert cpu_seconds("--help") < 1
    assert cpu_seconds("--config", QUICKSTART, "--out", str(tmp_path / "a")) < 1
    assert cpu_seconds("--config", PAPER, "--out", str(tmp_path / "c")) < 1
    loaded = planner("--config", PAPER, "--out", str(tmp_path / "b"), python=("-X", "importtime")).stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in loaded.splitlines()}
    assert "isoflop" in modules
    assert not modules & {"jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "torch", "pandas", "scipy"}


@pytest.mark.parametrize("experiment", [QUICKSTART, PAPER], ids=["quickstart", "smdm_isoflop"])
def test_command_is_pure(tmp_path, capsys, experiment: str) -> None:
    for name in ("a", "b", "a"):
        assert main(["--config", experiment, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a/plan.jsonl").read_bytes() == (tmp_path / "b/plan.jsonl").read_bytes()
    printed = capsys.readouterr().out.replace(str(tmp_path / "a"), "").replace(str(tmp_path / "b"), "")
    third = len(printed) // 3
    assert printed[:third] == printed[third : 2 * third] == printed[2 * third :]


def test_piped_grid_shows_every_number(tmp_path) -> None:
    arguments = ["--cells", "--budgets", "1e19,6e18", "--sizes", "6,170", "--out", str(tmp_path)]
    out = planner(*arguments, env={**os.environ, "COLUMNS": "20"}).stdout
    row = next(line.split() for line in out.splitlines() if line.startswith("mdm") and " 18710 " in line)
    assert row[:9] == ["mdm", "1e+19", "170", "0", "169.9M", "9.809B", "57.7", "18710", "256"]
    assert row[9:12] == ["0.0002", "187", "unknown"]
    assert row[-len(FlopConvention)] == "1.000e+19"
    assert "…" not in out
    runs = read_plan(tmp_path)
    assert len(runs) == 8
    cells = out.split("Expected")[0]
    assert sum(line.startswith(("mdm", "arm")) for line in cells.splitlines()) == 8
    for run in runs:
        for convention in FlopConvention:
            assert f"{train_flops(run, convention):.3e}" in cells


@pytest.mark.parametrize("columns", ["60", "160"])
def test_terminal_grid_shows_every_number(tmp_path, columns: str) -> None:
    arguments = ["--cells", "--budgets", "1e19", "--sizes", "170", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "isoflop.plan", *arguments]
    env = {**os.environ, "COLUMNS": columns, "TERM": "xterm"}
    code, text = on_terminal(functools.partial(subprocess.Popen, command, cwd=ROOT, env=env))
    assert code == 0
    assert b"18710" in text
    assert b"unknown" in text
    assert b"1.145e+19" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "--config FILE, or --budgets"),
        ("--sizes 6", "--config FILE, or --budgets"),
        ("--budgets 1e12", "is too far away"),
        ("--budgets 1e19 --sizes 6 --overlap mdm", "left out with --overlap"),
        ("--budgets 1e19 --overlap foo", "--overlap"),
        ("--budgets 1e19,1e20 --holdout 6e19", "above the mdm's grid, which ends at 1e+20"),
        ("--budgets 1e19,1e19", "different from one another"),
        ("--budgets 1e19,0", "above 0 FLOPs"),
        ("--budgets 1e19 --families mdm --overlap mdm", "left out where there is one family"),
        ("--budgets 1e19 --prior absent.json", "prior = 'absent.json'"),
        (f"--budgets 1e19 --prior {QUICKSTART}", "not the fits.json of a report"),
        ("--budgets 1e19 --set sweep.placement.window=1", "a factor above 1"),
        ('--budgets 1e19 --set sweep.placement.sizes=["7"]', "size '7'"),
        ("--budgets 1e19 --hardware v9:16", "v4, v5e, v5p, v6e, h100, h200, here"),
        ("--budgets 1e19 --hardware v5e:0", "from 1 to 2^20"),
        ("--budgets 1e19 --hardware v5e --mfu 40", "above 0 and at most 1"),
        ("--budgets 1e19 --mfu 0.4", "given with --hardware"),
        ("--budgets 1e19 --hardware v5e --price -1", "at least 0"),
        ("--budgets 1e19 --hardware v5e --flops-per-second 1e12", "left out with --hardware"),
        ("--budgets 1e18 --sizes 7", "2121"),
        ("--budgets 1e18 --sizes 6 --recipe foo", "smdm_code, smdm_paper, mdlm"),
        ("--budgets 1e18 --recipe foo", "mdm_jax: recipe 'foo': must be one of smdm_code"),
        ("--budgets 1e18 --sizes 6 --families foo", "mdm, arm"),
        ("--budgets=-1e18 --sizes 6", "above 0 FLOPs"),
        ("--budgets nan --sizes 6", "finite"),
        ("--budgets 1e12 --sizes 6", "too small for one step"),
        ("--budgets 1e18 --sizes 6,6", "the same run"),
        ("--budgets 1e18,x --sizes 6", "must be a number"),
        ("--budgets 1e18 --sizes 6 --set run.modle.d=1", "did you mean run.model"),
        ("--budgets 1e18 --sizes 6 --set sweep.seeds", "section.key=value"),
        ("--budgets 1e18 --sizes 6 --flops-per-second 0", "--flops-per-second = 0.0"),
        ("--budgets 1e18 --sizes 6 --frobnicate", "--frobnicate"),
        ("--config absent.py", "absent.py"),
        (f"--config {QUICKSTART} --families foo", "mdm, arm"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments: str, said: str) -> None:
    assert said in one_line(main, [*arguments.split(), "--out", str(tmp_path)], capsys)
    assert not (tmp_path / "plan.jsonl").exists()


def test_manifest_gives_epochs_and_data_hash(tmp_path, capsys) -> None:
    write_manifest(tmp_path / "data", manifest_of(vocab_size=512))
    arguments = ["--budgets", "1e12", "--sizes", "2x64", "--families", "mdm", "--recipe", "tiny", "--seq-len", "64"]
    assert main([*arguments, "--cells", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    (run,) = read_plan(tmp_path / "out")
    assert run.data.data_hash == manifest_of(vocab_size=512).data_hash
    assert run.model.vocab_size == run.data.tokenizer.vocab_size == 512
    assert f" {run.train_tokens / 1_000_000:.3g} " in capsys.readouterr().out


def test_manifest_of_another_corpus_is_refused(tmp_path, capsys) -> None:
    write_manifest(tmp_path / "data", manifest_of(vocab_size=512))
    setting = f"run.data.directory={tmp_path / 'data'}"
    assert main(["--config", QUICKSTART, "--set", setting, "--out", str(tmp_path / "out")]) == 1
    assert "prepared with another data.tokenizer" in capsys.readouterr().err
    arguments = ["--config", QUICKSTART, "--data", str(tmp_path / "data"), "--vocab-size", "300"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "--vocab-size = 300" in capsys.readouterr().err


def test_papers_sweep_takes_the_papers_steps_in_every_cell(tmp_path) -> None:
    assert main(["--config", PAPER, "--out", str(tmp_path)]) == 0
    runs = read_plan(tmp_path)
    assert len(runs) == 70
    assert {run.cell.budget for run in runs} == {6e18, 1e19, 3e19, 6e19, 1e20}
    for run in runs:
        n = count_parameters(run.model).non_embedding
        assert run.schedule.steps == int((run.cell.budget or 0) / (6 * n * 256 * 2048))
        assert (run.optim.global_batch, run.optim.lr_peak, run.data.seq_len) == (256, 2e-4, 2048)
        assert run.model.compute_dtype is ComputeDtype.BFLOAT16
        warmup = max(run.schedule.steps // 100, 100)
        assert (run.schedule.warmup_steps, run.schedule.lr_final_fraction) == (warmup, 0.1)


def test_budgets_alone_are_placed_and_flags_reach_the_placement(tmp_path, capsys) -> None:
    arguments = ["--budgets", "1e19,3e19,1e20", "--overlap", "mdm", "--holdout", "2e20", "--out", str(tmp_path)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    budgets = {family: {run.cell.budget for run in read_plan(tmp_path) if run.family is family} for family in Family}
    assert budgets[Family.MDM] == {1e19, 3e19, 1e20, 2e20}
    assert max(budget or 0 for budget in budgets[Family.ARM]) < 2e19
    assert out.count("held out") == 2
    assert main([*arguments, "--families", "arm"]) == 1
    assert "left out where there is one family" in capsys.readouterr().err


def test_flags_change_the_placement_of_an_experiment(tmp_path) -> None:
    assert main(["--config", PAPER, "--families", "mdm", "--holdout", "2e20", "--out", str(tmp_path / "a")]) == 0
    runs = read_plan(tmp_path / "a")
    assert {run.family for run in runs} == {Family.MDM}
    assert max(run.cell.budget or 0 for run in runs) == 2e20
    assert main(["--config", PAPER, "--budgets", "1e19", "--sizes", "170", "--out", str(tmp_path / "b")]) == 0
    assert [(run.cell.budget, run.cell.size) for run in read_plan(tmp_path / "b")] == [(1e19, "170")] * 2
    assert main(["--config", QUICKSTART, "--budgets", "1e19", "--batch", "64", "--out", str(tmp_path / "c")]) == 0
    assert all(run.cell.budget == 1e19 for run in read_plan(tmp_path / "c"))


def test_placed_plan_only_grows(tmp_path, capsys) -> None:
    arguments = ["--budgets", "1e19,3e19", "--out", str(tmp_path)]
    assert main(arguments) == 0
    before = (tmp_path / "plan.jsonl").read_text()
    give_result(tmp_path, read_plan(tmp_path)[0])
    assert main([*arguments, "--holdout", "1e20"]) == 0
    assert (tmp_path / "plan.jsonl").read_text().startswith(before)
    assert main(["--budgets", "3e19", "--out", str(tmp_path)]) == 1
    assert "it has a result or a checkpoint" in capsys.readouterr().err


def test_corpus_too_small_is_said_with_its_epochs(tmp_path, capsys) -> None:
    write_manifest(tmp_path / "data", manifest_of(vocab_size=512))
    arguments = ["--budgets", "1e12", "--sizes", "2x64", "--families", "mdm", "--recipe", "tiny", "--seq-len", "64"]
    arguments += ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "1 of 1 runs read the text more than once" in capsys.readouterr().out
    assert main([*arguments, "--budgets", "1e13"]) == 0
    assert "WARNING: 1 of 1 runs read the text more than once" in capsys.readouterr().err
    error = one_line(main, [*arguments, "--set", "sweep.max_epochs=1"], capsys)
    assert "up to 1.27 times (mdm 2x64 at 1e+12 FLOPs" in error


def test_flags_reach_the_runs(tmp_path) -> None:
    other = {"--budgets": "1e13", "--sizes": "2x64", "--seq-len": "96", "--vocab-size": "300"}
    arguments = ["--config", QUICKSTART, *(word for flag in other.items() for word in flag)]
    elsewhere = f"run.data.directory={tmp_path / 'nothing_prepared'}"
    settings = ["--batch", "8", "--set", "run.optim.weight_decay=0", "--set", "sweep.seeds=[3]", "--set", elsewhere]
    assert main([*arguments, *settings, "--out", str(tmp_path)]) == 0
    mdm, arm = read_plan(tmp_path)
    assert (mdm.family, arm.family) == (Family.MDM, Family.ARM)
    assert (mdm.data.seq_len, mdm.model.vocab_size, mdm.optim.global_batch) == (96, 300, 8)
    assert (mdm.optim.weight_decay, mdm.seed) == (0, 3)
    assert mdm.data.tokenizer.kind is TokenizerKind.SENTENCEPIECE


def test_families_alone_pick_the_experiments_curves(tmp_path) -> None:
    assert main(["--config", QUICKSTART, "--families", "arm", "--out", str(tmp_path)]) == 0
    assert {run.family for run in read_plan(tmp_path)} == {Family.ARM}


def test_defaults_of_a_config_are_the_specs() -> None:
    assert build(RunSpec, default_run().to_dict()) == RunSpec()
    assert to_dict(RunSpec()) == default_run().to_dict()


def test_an_ablation_shrinks_to_other_budgets_and_sizes(tmp_path) -> None:
    """The twelve groups of flop_accounting stay, whatever their curves become."""
    small = ["--vocab-size", "257", "--seq-len", "64", "--batch", "8", "--budgets", "1e10", "--sizes", "1x8,1x12"]
    here = ["run.hardware.mesh_data=1", "run.hardware.microbatches=1"]
    config = str(ROOT / "experiments/flop_accounting.py")
    planner("--config", config, *small, "--set", *here, "--out", str(tmp_path))
    runs = read_plan(tmp_path)
    counted = {(run.cell.group, run.cell.convention) for run in runs}
    assert len({group for group, _ in counted}) == len(counted) == 12
    assert all(group.startswith(convention.value) for group, convention in counted)
    assert len(runs) == 4 * (1 + 1 + 3) * 2
