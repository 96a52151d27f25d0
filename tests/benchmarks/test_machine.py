"""Results are kept by machine, and the peak of the memory is in bytes on every system."""

import json
import os
import platform
import resource
import sys
from pathlib import Path

from benchmarks import machine as module
from benchmarks.machine import add_results, machine, peak_bytes


def test_results_of_other_names_and_machines_stay(tmp_path):
    file = tmp_path / "found.json"
    file.write_text(json.dumps({"another": {"a": 1}, machine(): {"a": 2, "b": 3}}))
    add_results(file, {"b": 4, "c": 5})
    assert json.loads(file.read_text()) == {"another": {"a": 1}, machine(): {"a": 2, "b": 4, "c": 5}}
    add_results(tmp_path / "new.json", {"a": 1})
    assert json.loads((tmp_path / "new.json").read_text()) == {machine(): {"a": 1}}


def test_the_peak_is_in_bytes_without_proc_too(monkeypatch, tmp_path):
    """getrusage counts bytes on macOS, and KiB on other systems."""
    reported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0.2 * 1024 * reported < peak_bytes() <= 1.2 * 1024 * reported
    monkeypatch.setattr(module, "Path", lambda name: Path(tmp_path / "absent"))
    assert peak_bytes() >= 1024 * reported
    monkeypatch.setattr(sys, "platform", "darwin")
    assert reported <= peak_bytes() < 2 * reported


def test_the_machine_is_named_by_its_processor(tmp_path):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    (tmp_path / "x86").write_text(
        "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n"
    )
    assert machine(tmp_path / "x86") == f"AMD EPYC, family 25, model 17, {cores} cores"
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    for other in ("arm", "absent"):
        assert machine(tmp_path / other) == f"{platform.processor() or platform.machine()}, {cores} cores"
