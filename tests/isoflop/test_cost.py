import dataclasses

import pytest

from isoflop.cost import Machine, doubts, find_machine, measured_flops_per_second, work_flops
from isoflop.grid import make_grid
from isoflop.measured import measured_machine
from isoflop.plan.__main__ import main
from isoflop.sweep import CurveSpec, SweepSpec
from isoflop.wording import duration, money, plain
from mdm_jax.devices.accelerators import DEVICES
from mdm_jax.spec import (
    EXACT_LIKELIHOODS,
    CellSpec,
    ComputeDtype,
    DataSpec,
    EvaluationSpec,
    Family,
    FlopConvention,
    HardwareSpec,
    ModelSpec,
    ObjectiveSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
)
from mdm_jax.spec.counting import forward_flops, train_flops

RUN = RunSpec(
    model=ModelSpec(vocab_size=32000, compute_dtype=ComputeDtype.BFLOAT16),
    data=DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000), seq_len=2048),
    evaluation=EvaluationSpec(eval_tokens=65536 + 2048, batch=16),  # 32 of the 33 rows fill batches
)


def cells(*sizes: str, template: RunSpec = RUN) -> tuple[RunSpec, ...]:
    curves = tuple(CurveSpec(family, 1e19, sizes) for family in Family)
    return make_grid(template, SweepSpec(curves=curves, recipe="smdm_code"), HardwareSpec())


# bf16 FLOP/s and memory as the vendors publish them: dense figures, half of those that NVIDIA prints with sparsity.
PUBLISHED = {
    "v4": (275, 34.4),
    "v5e": (197, 16),
    "v5p": (459, 95),
    "v6e": (918, 32),
    "h100": (989, 80),
    "h200": (989, 141),
}


def test_table_holds_the_published_figures() -> None:
    assert DEVICES.keys() == PUBLISHED.keys()
    for kind, (teraflops, gigabytes) in PUBLISHED.items():
        assert DEVICES[kind].flops_per_second == pytest.approx(teraflops * 1e12, rel=1e-3)
        assert DEVICES[kind].memory_bytes == pytest.approx(gigabytes * 1e9, rel=2e-3)
        assert DEVICES[kind].source


def test_time_is_exact_flops_over_speed_and_hours_follow_devices() -> None:
    runs = cells("170", "336")
    one = find_machine("v5e:1", mfu=0.5, price=2.0, overhead=0.0)
    many = find_machine("V5E:16", mfu=0.5, price=2.0, overhead=0.0)
    for run in runs:
        assert one.seconds(run) == pytest.approx(work_flops(run) / (197e12 * 0.5))
        assert many.seconds(run) == pytest.approx(one.seconds(run) / 16)
    assert many.device_hours(runs) == pytest.approx(one.device_hours(runs))
    assert many.price(runs) == pytest.approx(2 * many.device_hours(runs))
    assert many.price(runs) == pytest.approx(sum(many.price([run]) or 0 for run in runs))
    assert find_machine("v5e", None, None, None).price(runs) is None


def test_overhead_counts_on_every_device() -> None:
    (run, _) = cells("170")
    machine = find_machine("v5p:8", None, None, 60.0)
    bare = dataclasses.replace(machine, run_overhead_seconds=0.0)
    assert machine.seconds(run) - bare.seconds(run) == pytest.approx(60)
    assert machine.device_hours([run]) - bare.device_hours([run]) == pytest.approx(8 * 60 / 3600)


def test_work_includes_the_final_evaluation() -> None:
    mdm, arm = cells("170")
    once = {run: work_flops(run) - train_flops(run, FlopConvention.EXACT) for run in (mdm, arm)}
    rows = 32
    assert once[arm] == forward_flops(arm.model, arm.objective, rows, 2048)
    assert once[mdm] == RUN.evaluation.mc_samples * forward_flops(mdm.model, mdm.objective, rows, 2048)
    changed = dataclasses.replace(mdm, objective=ObjectiveSpec(Variant.D3PM, time_steps=9, carry_over=False))
    assert work_flops(changed) - train_flops(changed, FlopConvention.EXACT) == once[mdm]  # the NELBO, as for any MDM
    asked = {run: dataclasses.replace(run.evaluation, likelihoods=EXACT_LIKELIHOODS) for run in (mdm, arm)}
    more = {run: work_flops(dataclasses.replace(run, evaluation=asked[run])) - work_flops(run) for run in (mdm, arm)}
    assert more == {mdm: 2 * 2048 * forward_flops(mdm.model, mdm.objective, rows, 2048), arm: 0}
    segment = dataclasses.replace(mdm, cell=CellSpec(segment=True))
    assert work_flops(dataclasses.replace(segment, evaluation=asked[mdm])) == work_flops(segment)


def test_this_machine_is_measured() -> None:
    assert 1e7 < measured_flops_per_second(seconds=0.05, size=256) < 1e15  # 5e8 was measured on two crowded cores
    machine = find_machine("here", None, None, None)
    assert not machine.on_accelerators
    assert machine.devices == 1
    assert 0 < machine.mfu < 1
    assert f"assumed MFU of {machine.mfu:g}" in machine.description


def test_what_is_assumed_is_called_so() -> None:
    assert "at an assumed 6e+10 FLOP/s" in Machine().description
    assert "an assumed 2 s a run" in Machine().description
    given = Machine().with_known(peak_flops_per_second=1e10, run_overhead_seconds=3.0)
    assert (given.peak_flops_per_second, given.run_overhead_seconds) == (1e10, 3.0)
    assert "assumed" in Machine().with_known(peak_flops_per_second=1e10).description
    measured = measured_machine([(run, 10.0 + work_flops(run) / 1e12) for run in (*cells("6"), *cells("19"))])
    assert measured is not None
    accelerator = find_machine("v5e:16", 0.5, None, 60.0)
    assert not any("assumed" in machine.description for machine in (given, measured, accelerator))
    usual = find_machine("v5e:16", None, None, None).description
    assert "at an assumed MFU of 0.4" in usual
    assert "an assumed 120 s a run" in usual


@pytest.mark.parametrize(
    ("hardware", "mfu", "price", "said"),
    [
        ("v9", None, None, "KIND:COUNT"),
        ("", None, None, "KIND:COUNT"),
        ("v5e:x", None, None, "KIND:COUNT"),
        ("v5e:-4", None, None, "KIND:COUNT"),
        ("v5e:0", None, None, "from 1 to"),
        ("v5e:999999999", None, None, "from 1 to"),
        ("here:2", None, None, "one device"),
        ("v5e", 0.0, None, "--mfu = 0.0"),
        ("v5e", 1.5, None, "--mfu = 1.5"),
        ("v5e", float("nan"), None, "--mfu = nan"),
        ("v5e", None, -1.0, "--price = -1.0"),
        ("v5e", None, float("nan"), "--price = nan"),
    ],
)
def test_bad_machines_are_refused(hardware: str, mfu: float | None, price: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_machine(hardware, mfu, price, None)


def sharded(runs: tuple[RunSpec, ...], devices: int) -> tuple[RunSpec, ...]:
    return tuple(dataclasses.replace(run, hardware=HardwareSpec(mesh_data=devices)) for run in runs)


def test_a_state_that_does_not_fit_names_the_devices_that_do() -> None:
    runs = cells("170", "2121")
    (said,) = doubts(sharded(runs, 2), find_machine("v5e:2", None, None, None))
    assert said.startswith("2121 does not fit")
    assert "--hardware v5e:3 or more" in said
    assert not list(doubts(sharded(runs, 4), find_machine("v5e:4", None, None, None)))
    assert not list(doubts(runs, Machine()))


def test_float32_runs_are_not_judged_by_the_peak_of_bfloat16_in_silence() -> None:
    model = dataclasses.replace(RUN.model, compute_dtype=ComputeDtype.FLOAT32)
    runs = cells("170", template=dataclasses.replace(RUN, model=model))
    (said,) = doubts(sharded(runs, 8), find_machine("h100:8", None, None, None))
    assert "float32" in said


def test_devices_that_no_run_uses_are_named() -> None:
    (said,) = doubts(cells("170"), find_machine("v5e:16", None, None, None))
    assert "use 1 of the 16 devices" in said
    assert "run.hardware.mesh_data=16" in said


def test_plan_prints_hours_and_money_by_curve_family_and_in_all(tmp_path, capsys) -> None:
    arguments = ["--budgets", "6e18,1e19", "--sizes", "113,170", "--hardware", "v5e:16", "--price", "1.5"]
    assert main([*arguments, "--cells", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    totals = [line.split() for line in out.split("Totals")[1].splitlines() if line.startswith(("mdm", "arm", "all"))]
    assert [row[:2] for row in totals[:3]] == [["mdm", "6e+18"], ["mdm", "1e+19"], ["mdm", "all"]]
    money_of = {tuple(row[:2]): float(next(x for x in row if x[0] == "$")[1:].replace(",", "")) for row in totals}
    assert money_of["arm", "all"] == pytest.approx(money_of["arm", "6e+18"] + money_of["arm", "1e+19"], rel=0.01)
    assert money_of["all", "8"] == pytest.approx(money_of["arm", "all"] + money_of["mdm", "all"], rel=0.01)
    fixed = "an assumed 120 s a run for start, imports and compilation (--run-overhead)"
    assert f"an assumed MFU of 0.4 (--mfu), {fixed}, $1.5" in out
    assert main([*arguments[:-2], "--out", str(tmp_path)]) == 0
    assert "$" not in capsys.readouterr().out


def test_numbers_for_people() -> None:
    assert [duration(s) for s in (14.0, 600.0, 36000.0, 1e6, 1e9)] == ["14 s", "10.0 min", "10.0 h", "11.6 d", "31.7 y"]
    assert [money(x) for x in (0.0, 12.4, 1240.4)] == ["$0.00", "$12.40", "$1,240"]


def test_plain_table_leaves_out_empty_columns() -> None:
    rows = [("", "mdm", "1", ""), ("", "arm", "20", "")]
    assert plain("T", ("group", "family", "n", ""), rows) == "T\nfamily   n\nmdm      1\narm     20\n"
