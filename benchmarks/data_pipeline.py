"""Tokens a second of the training pipeline and of the steps that use them, and how long the real loop waits for it.

    python -m benchmarks.data_pipeline

The pipeline is what a run has: a prepared corpus on the disk, its shuffled rows, and the batch on the device. The
corpus is made here, of random ids. The result has:

- `first pass`, `pipeline`: tokens a second of whole batches, put on the device. The first pass also verifies blocks.
- `read`: tokens a second of the rows alone.
- `step`: tokens a second of a train step whose batch lies on the device already. `ratio` is the speed of `pipeline`,
  divided by that of `step`.
- `loop`: tokens a second of the training loop, and its seconds.
- `waited`: the seconds of the loop in which the devices had no step to compute, because there was no batch, and their
  share of the loop's seconds. The wait for the first batch does not count.

The result stands in benchmarks/results/data_pipeline.json, by the machine's name. Let nothing else run meanwhile.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import add_results
from benchmarks.own_step import Steps
from isoflop.ladder import SMDM
from mdm_jax.command import aligned
from mdm_jax.data.corpus import TrainingRows, open_corpus
from mdm_jax.data.manifest import Manifest, data_hash, write_manifest
from mdm_jax.data.shards import ShardWriter
from mdm_jax.devices.sharding import global_batch, make_mesh
from mdm_jax.files.storage import as_path
from mdm_jax.spec import (
    CorpusSource,
    CorpusSpec,
    DataSpec,
    Family,
    HardwareSpec,
    LayerLoop,
    ModelSpec,
    OptimSpec,
    RunSpec,
    ScheduleSpec,
    TokenizerKind,
    TokenizerSpec,
    pair,
)
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.loop import Row, Watch, train
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import init_state

RESULT = Path(__file__).resolve().parent / "results" / "data_pipeline.json"
TOKENS = 1 << 23
NO_FILE = "none"
TARGET = 5.0
"""The pipeline must be this many times as fast as the step."""


@dataclass(frozen=True)
class Case:
    """A model whose step is timed, and the steps that are taken for each number."""

    model: ModelSpec
    rows: int
    seq_len: int
    vocab: int
    timed_steps: int
    loop_steps: int


CASES = {
    "quickstart 1x8": Case(ModelSpec(n_layers=1, d_model=8, n_heads=1, d_ffn=32), 64, 64, 257, 200, 600),
    "quickstart 2x28": Case(ModelSpec(n_layers=2, d_model=28, n_heads=1, d_ffn=112), 16, 64, 257, 200, 600),
    "SMDM 6M": Case(SMDM["6"].model(ModelSpec(vocab_size=32000)), 8, 512, 32000, 3, 6),
}
"""Two sizes of experiments/quickstart.py, with batches of its recipe, and the smallest size of the published ladder."""


def run_spec(case: Case, directory: str) -> RunSpec:
    """The ARM of the case, whose step is faster than the MDM's."""
    tokenizer = TokenizerSpec()
    if case.vocab != tokenizer.vocab_size:
        tokenizer = TokenizerSpec(TokenizerKind.SENTENCEPIECE_FILE, case.vocab, NO_FILE)
    corpus = CorpusSpec(CorpusSource.TEXT, NO_FILE)
    return pair(
        RunSpec(
            model=replace(case.model, vocab_size=case.vocab),
            data=DataSpec(corpus, tokenizer, case.seq_len, directory=directory),
            optim=OptimSpec(global_batch=case.rows, lr_peak=1e-3),
            schedule=ScheduleSpec(steps=case.loop_steps, warmup_steps=0),
            hardware=HardwareSpec(layers=LayerLoop.UNROLL, checkpoint_every=case.loop_steps),
        ),
        Family.ARM,
    )


def make_corpus(data: DataSpec, tokens: int) -> None:
    """Writes a prepared corpus of random ids into `data.directory`."""
    folder, draw = as_path(data.directory), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for name, count in (("train", tokens), ("validation", 1 << 16)):
        writer = ShardWriter(folder, name, "uint16")
        writer.add(draw.integers(0, data.tokenizer.vocab_size, count), text_bytes=count)
        splits[name] = writer.finish()
    made = data_hash("", **splits)
    ids = data.tokenizer.vocab_size
    settings = (data.corpus, data.tokenizer, data.validation_fraction, ids, ids - 1, "uint16", "", made)
    write_manifest(folder, Manifest(*settings, **splits))


def median_seconds(call: Callable[[int], object], count: int) -> float:
    """The median seconds of `call(0) … call(count - 1)`."""
    seconds = []
    for number in range(count):
        begun = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def pipeline_seconds(rows: TrainingRows, mesh: jax.sharding.Mesh, batches: int) -> dict[str, float]:
    """Seconds of a batch: its rows alone, and with its way to the device; the first pass reads and verifies."""

    def whole(step: int) -> None:
        global_batch(mesh, rows.shape, functools.partial(rows.read, step)).block_until_ready()

    first = median_seconds(whole, batches)
    read = median_seconds(lambda step: rows.read(step, 0, rows.global_batch), batches)
    return {"first pass": first, "read": read, "pipeline": median_seconds(whole, batches)}


def step_seconds(spec: RunSpec, mesh: jax.sharding.Mesh, steps: int) -> float:
    """Median seconds of a train step whose batch lies on the device, in calls as the training loop makes them."""
    made = Steps(spec, np.ones((spec.optim.global_batch, spec.data.seq_len), np.int32), mesh)
    made.call(1)
    return median_seconds(lambda _: made.call(made.most), max(steps // made.most, 3)) / made.most


def waits(spec: RunSpec, mesh: jax.sharding.Mesh, rows: TrainingRows, folder: Path) -> Row:
    """The last row of the metrics of the real loop."""
    reported: list[Row] = []
    checkpoints = Checkpoints(as_path(folder / "checkpoints"), Identity("benchmark", "random"))
    train(init_state(spec), spec, mesh, rows, checkpoints, None, Watch(report=reported.append))
    checkpoints.close()
    return reported[-1]


def measure(case: Case, folder: Path, corpus_tokens: int = TOKENS) -> dict[str, Any]:
    """The result of one case, whose corpus and checkpoints go into the folder."""
    spec = run_spec(case, str(folder / "prepared"))
    make_corpus(spec.data, corpus_tokens)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    tokens = case.rows * case.seq_len
    with jax.set_mesh(mesh):
        rows = open_corpus(spec.data).training_rows(case.rows, seed=0)
        pipeline = pipeline_seconds(rows, mesh, min(corpus_tokens // tokens, 2000))
        step = step_seconds(spec, mesh, case.timed_steps)
        row = waits(spec, mesh, rows, folder)
    return {
        **{f"{name} tokens/s": tokens / seconds for name, seconds in pipeline.items()},
        "step tokens/s": tokens / step,
        "ratio": step / pipeline["pipeline"],
        "loop tokens/s": row["tokens_per_second"],
        "waited share": row["seconds_waited"] / row["seconds"],
        "waited seconds": row["seconds_waited"],
        "loop seconds": row["seconds"],
        "batch": [case.rows, case.seq_len],
    }


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """The rows as text; `ratio` is the pipeline's speed as a multiple of the step's."""
    header = ("model", "Mtokens/s of the pipeline", "of the step", "ratio", "devices waited")
    rows = [
        (
            name,
            f"{row['pipeline tokens/s'] / 1e6:.2f}",
            f"{row['step tokens/s'] / 1e6:.4f}",
            f"{row['ratio']:.1f}",
            f"{row['waited share']:.2%}",
        )
        for name, row in found.items()
    ]
    return aligned([header, *rows], left=("model",))


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    given = flags.parse_args()
    found = {}
    for name in given.cases:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(CASES[name], Path(folder))
    print(*table(found), sep="\n", flush=True)
    slowest = min(row["ratio"] for row in found.values())
    print(f"at least {slowest:.1f} times as fast as the step; the target is {TARGET:g}")
    add_results(RESULT, found)


if __name__ == "__main__":
    main()
