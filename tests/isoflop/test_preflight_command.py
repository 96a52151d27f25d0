"""The preflight's command: programs of a plan, bad input, interruptions, and this host's own devices."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
from preflight_runs import TINY, run_of, tiny_plan

from isoflop.planfile import read_plan
from isoflop.preflight import __main__ as preflight
from isoflop.preflight.compile import Compiled, Setting
from isoflop.preflight.report import Report
from isoflop.preflight.topology import find_topology
from isoflop.preflight.verdict import examine
from mdm_jax.spec import Family, Remat


def test_shapes_are_what_compiles_to_one_program():
    run = run_of()
    other_seed = dataclasses.replace(run, seed=1, schedule=dataclasses.replace(run.schedule, steps=7, warmup_steps=0))
    other_rate = dataclasses.replace(run, optim=dataclasses.replace(run.optim, lr_peak=1e-4))
    groups = list(preflight.shapes([run, other_seed, run_of("34"), other_rate, run_of(family=Family.ARM)]))
    assert [len(group) for group in groups] == [3, 1, 1]


def command(folder, *flags, **environment):
    return subprocess.run(
        [sys.executable, "-m", "isoflop.preflight", str(folder), *flags],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=200,
    )


def interrupted(folder, *flags, at, **environment):
    """What the command has said, line by line, and its exit code; Ctrl-C reaches it when a line begins with `at`."""
    call = [sys.executable, "-m", "isoflop.preflight", str(folder), *flags]
    environment = {**os.environ, **environment}
    with subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if line.startswith(at):
                process.send_signal(signal.SIGINT)
    return said, process.returncode


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology", "v5e:3x3"], "topology 'v5e:3x3': must be one of"),
        (["--topology", "v5e:4x4"], "of the 16 devices of v5e:4x4: --mesh 16x1"),
        (["--topology", "v5e:4x4", "--mesh", "8x1"], "--mesh = '8x1'"),
        (["--topology", "v5e:4x4", "--mesh", "16"], "DATAxMODEL"),
        (["--topology", "v5e:2x4", "--mesh", "1x8"], "hardware.mesh_model = 8: must be a divisor of model.n_heads = 4"),
        (["--topology", "v5e:2x2", "--mesh", "4x1", "--sizes", "170"], "sizes of the plan: 3x32"),
        (["--topology", "v5e:2x2", "--mesh", "4x1", "--time-limit", "0"], "--time-limit"),
        ([], "--topology"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, flags, words):
    tiny_plan(tmp_path)
    try:
        code = preflight.main([str(tmp_path), *flags])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err.strip()
    assert code == 1
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "preflight.json").exists()


def test_a_missing_plan_is_one_line(tmp_path, capsys):
    assert preflight.main([str(tmp_path), "--topology", "v5e:2x2"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_this_hosts_devices_stand_in_and_say_so(tmp_path):
    """The whole command on a tiny plan, in processes of its own: both families compile for four CPU devices.

    Ctrl-C stops it while the second shape compiles; the same command then compiles that one alone.
    """
    runs = tiny_plan(tmp_path)
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # to compile
    flags = ("--topology", "v5e:2x2", "--mesh", "4x1", "--host")
    said, code = interrupted(tmp_path, *flags, at="[2/2]", **quick)
    assert code == 130, said
    assert said[0] == "2 shapes of 4 runs on v5e:2x2"
    assert "[1/2] mdm 3x32, batch 16: compiling hardware.remat=none hardware.microbatches=1 (after 0 s)" in said
    stop = f"mdm_jax: stopped: 1 of 2 shapes are in {tmp_path}/preflight.json; the same command goes on"
    assert said[-1].startswith(stop)
    assert not any("Traceback" in line for line in said)
    (first,) = json.loads((tmp_path / "preflight.json").read_text())["shapes"]
    done = command(tmp_path, *flags, "--write", **quick)
    assert done.returncode == 0, done.stderr
    assert "[1/2] mdm 3x32, batch 16: compiles (read from preflight.json)" in done.stderr
    assert done.stderr.count("compiling hardware.remat") == 1
    assert json.loads((tmp_path / "preflight.json").read_text())["shapes"][0] == first
    assert "say nothing about the TPU" in done.stderr
    assert "not the TPU's" in done.stdout
    report = json.loads((tmp_path / "preflight.json").read_text())
    assert (report["topology"], report["limit_bytes"]) == ("v5e:2x2", None)
    assert "XLA:CPU" in report["compiler"]
    assert len(report["shapes"]) == 2
    assert sorted(run_id for shape in report["shapes"] for run_id in shape["runs"]) == sorted(r.run_id for r in runs)
    for shape in report["shapes"]:
        planned = shape["planned"]
        memory = planned["memory"]
        total = memory["arguments"] + memory["temporaries"] + memory["outputs"] - memory["aliased"]
        assert planned["hbm_bytes"] == total > 0
        assert shape["fits"] is None
        assert planned["device_kind"] == "cpu"
        assert planned["collectives"]["all-gather"]["times"] >= 5 * TINY.n_layers  # every weight, every layer
        assert planned["roofline"]["seconds"] > 0
    written = read_plan(tmp_path)
    assert [run.run_id for run in written] == [run.run_id for run in runs]
    assert {(run.hardware.mesh_data, run.hardware.mesh_model) for run in written} == {(4, 1)}


def test_a_report_is_read_again_on_its_own_slice_by_its_own_versions(tmp_path):
    (run, *_) = tiny_plan(tmp_path)
    sent = {"all-gather": {"times": 2, "sent_bytes": 7.0}}
    answer = Compiled(Setting(Remat.NONE, 1), hbm_bytes=1.0, memory={"peak": 3}, collectives=sent)
    topology, larger = find_topology("v5e:2x2"), find_topology("v5e:2x4")

    def known(topology):
        return Report(str(tmp_path), topology, True, [run]).answer(run, answer.setting)

    verdict = examine((run,), topology, lambda setting: answer, on_host=True)
    Report(str(tmp_path), topology, True, [run]).add(verdict)
    assert (known(topology), known(larger)) == (answer, None)
    path = tmp_path / "preflight.json"
    text = path.read_text()
    path.write_text(text.replace('"jax": "', '"jax": "9'))
    assert known(topology) is None
    path.write_text(text.replace('"peak": 3', '"peak": "3"'))
    with pytest.raises(ValueError, match=r"preflight\.json: not the report of a preflight .*peak.*: delete it"):
        known(topology)


def test_started_runs_keep_their_hardware(tmp_path):
    runs = tiny_plan(tmp_path)
    (tmp_path / "runs" / runs[0].run_id).mkdir(parents=True)
    topology = find_topology("v5e:2x2")
    verdicts = [
        examine(shape, topology, lambda setting: Compiled(setting, memory={}, hbm_bytes=1.0))
        for shape in preflight.shapes([preflight.on_mesh(run, "4x1", topology) for run in runs])
    ]
    assert "hardware of 3 runs written" in preflight.write_settings(str(tmp_path), verdicts)
    assert [run.hardware.mesh_data for run in read_plan(tmp_path)] == [1, 4, 4, 4]


def test_help_answers_without_jax():
    code = "import sys, isoflop.preflight; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
