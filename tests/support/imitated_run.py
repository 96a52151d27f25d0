"""A stand-in for mdm_jax.main with its contract: result.json, exit codes, a checkpoint on SIGTERM.

python tests/support/imitated_run.py DIR RUN_ID
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from mdm_jax.files.lock import Held, hold_run
from mdm_jax.files.results import Status, read_result, result_of, write_result
from mdm_jax.files.storage import as_path
from mdm_jax.spec import from_json
from mdm_jax.train.metrics import MetricsWriter

directory, run_id = Path(sys.argv[1]), sys.argv[2]
folder = directory / "runs" / run_id
mode = json.loads((directory / "modes.json").read_text())[run_id]
spec = next(s for s in map(from_json, (directory / "plan.jsonl").read_text().splitlines()) if s.run_id == run_id)
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
jax_settings = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
begun = {"run_id": run_id, "cores": cores, "start": time.monotonic(), "jax": jax_settings}
with open(directory / "started.jsonl", "a") as log:
    log.write(json.dumps(begun) + "\n")
number = (folder / "log.txt").read_text().count("# attempt")


def end(status, code, **more):
    write_result(folder / "result.json", result_of(spec, status, **more))
    print(f"ended {status.value}")
    sys.exit(code)


if spec.cell.parent_run_id:
    parent = read_result(directory / "runs" / spec.cell.parent_run_id / "result.json")
    assert parent.status is Status.OK, f"started while its parent was {parent.status.value}"
if mode == "crash":
    raise RuntimeError("the imitation crashed [red]")
if mode == "failed":
    end(Status.FAILED, 1, excluded_reason="its own words", attempts=number)
if mode == "diverged":
    end(Status.DIVERGED, 3, excluded_reason="loss is nan at step 7")
if mode == "silent":
    sys.exit(0)
if mode == "killed":
    noted = {"device": "imitated", "wall_seconds": 100.0 * number}
    write_result(folder / "result.json", result_of(spec, Status.RUNNING, **noted))
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "held":
    try:
        with hold_run(as_path(folder), print):
            pass
    except Held as error:
        print(error)
        sys.exit(42)
if mode == "flaky" and number < 3:
    print("not this time")
    sys.exit(42)
if mode == "always42":
    sys.exit(42)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "deaf").write_text(str(os.getpid()))
    time.sleep(600)
if mode == "hang" and not (folder / "checkpoint").exists():

    def stop(*_):
        (folder / "checkpoint").write_text("saved")
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    (folder / "hanging").write_text(str(os.getpid()))
    time.sleep(600)
if mode == "training":
    metrics = MetricsWriter(as_path(folder / "metrics"), 0)
    for step in range(10, spec.schedule.steps // 2, 10):
        metrics.write({"step": step, "loss": 3.25, "tokens_per_second": 1e5})
        time.sleep(0.015)
if mode == "slow":
    time.sleep(0.8)
end(Status.OK, 0, loss=2.5, loss_se_mc=0.01)
