"""Sweeps whose runs are imitated: each does at once what its mode says, and the runner's part is real."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from isoflop.planfile import write_plan
from isoflop.run.__main__ import run_sweep
from isoflop.run.runner import Policy, Stop
from mdm_jax.data.manifest import Manifest, Shard, Split, data_hash, write_manifest
from mdm_jax.files.results import RunResult
from mdm_jax.spec import CellSpec, CorpusSpec, RunSpec, ScheduleSpec, TokenizerKind, TokenizerSpec

ROOT = Path(__file__).parents[2]
IMITATION = str(ROOT / "tests/support/imitated_run.py")
QUICK = Policy(retries_after=(0.02, 0.02))

# The command line with imitated runs, as a program that can be signalled.
DRIVER = """
import sys
from isoflop.run.__main__ import main
directory = sys.argv[1]
start = [sys.executable, sys.argv.pop(), directory]
raise SystemExit(main(sys.argv[1:], command=lambda run: [*start, run.run_id]))
"""


def make_sweep(directory: Path, modes: list[str]) -> list[RunSpec]:
    """A planned sweep in which run i takes the modes' i-th way; later ones cost less."""
    steps = [1000 * (len(modes) - i) for i in range(len(modes))]
    runs = [RunSpec(schedule=ScheduleSpec(steps=n, warmup_steps=0), cell=CellSpec(budget=1e11)) for n in steps]
    return write_sweep(directory, runs, modes)


def write_sweep(directory: Path, runs: Sequence[RunSpec], modes: Sequence[str]) -> list[RunSpec]:
    """The runs as they are planned in the directory, each with its mode; its corpus is there by name alone."""
    data = [dataclasses.replace(run.data, directory=str(directory / "data")) for run in runs]
    runs = [dataclasses.replace(run, data=own) for run, own in zip(runs, data, strict=True)]
    directory.mkdir(parents=True, exist_ok=True)
    write_plan(directory, runs)
    set_modes(directory, runs, modes)
    (directory / "driver.py").write_text(DRIVER)
    write_manifest(directory / "data", manifest_of())
    return runs


def set_modes(directory: Path, runs: Sequence[RunSpec], modes: Sequence[str]) -> None:
    """Makes run i go the modes' i-th way from now on."""
    modes_of = {run.run_id: mode for run, mode in zip(runs, modes, strict=True)}
    (directory / "modes.json").write_text(json.dumps(modes_of))


def manifest_of(train: int = 10**6, validation: int = 10**5, vocab_size: int = 257, text: str = "ab") -> Manifest:
    """The manifest of a corpus with so many tokens, whose shards are not there; `text` stands for what they hold."""
    kind = TokenizerKind.BYTES if vocab_size == 257 else TokenizerKind.SENTENCEPIECE
    trained, held_out = (Split(n, 10, n, (Shard(f"{n}.bin", n, 2 * n, text * 32),)) for n in (train, validation))
    return Manifest(
        corpus=CorpusSpec(),
        tokenizer=TokenizerSpec(kind, vocab_size),
        validation_fraction=0.02,
        vocab_size=vocab_size,
        eos_id=vocab_size - 1,
        dtype="uint16",
        tokenizer_hash="cd" * 32,
        data_hash=data_hash("cd" * 32, trained, held_out),
        train=trained,
        validation=held_out,
    )


def imitation(directory: Path) -> Callable[[RunSpec], list[str]]:
    return lambda run: [sys.executable, IMITATION, str(directory), run.run_id]


def sweep(directory: Path, policy: Policy = QUICK, stop: Stop | None = None) -> list[RunResult]:
    return run_sweep(directory, policy=policy, command=imitation(directory), stop=stop)


def started(directory: Path) -> list[dict]:
    path = directory / "started.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def driver(directory: Path, *flags: str, **options) -> subprocess.Popen:
    command = [sys.executable, str(directory / "driver.py"), str(directory), *flags, IMITATION]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes | options)


def wait_for(path: Path) -> Path:
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
    return path
