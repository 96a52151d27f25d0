"""Our train step, served to `benchmarks/train_step.py` as `benchmarks/peer_torch.py` serves torch's.

    python -m benchmarks.own_step --size 6 --family mdm --rows 8 --length 512 --set layers=unroll microbatches=2

A line with a number K makes it run K steps and answer with their seconds, as JSON. At the end of the input it answers
with the peak of its memory, the seconds of its first step, and the FLOPs of a step.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from benchmarks.machine import peak_bytes
from isoflop.ladder import find_size
from mdm_jax.devices.cpu_compiler import with_fast_compiler
from mdm_jax.devices.huge_pages import restart_with_huge_pages
from mdm_jax.devices.sharding import global_batch, make_mesh, stack_batches
from mdm_jax.spec import (
    Attention,
    DataSpec,
    Family,
    FlopConvention,
    HardwareSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
)
from mdm_jax.spec.counting import step_flops
from mdm_jax.spec.validation import build
from mdm_jax.train.cpu_tuning import steps_in_a_call
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step


def run_spec(size: str, family: Family, rows: int, length: int, vocab: int, hardware: dict[str, Any]) -> RunSpec:
    """The run whose step is timed. It reads no corpus."""
    attention = Attention.CAUSAL if family is Family.ARM else Attention.BIDIRECTIONAL
    tokenizer = TokenizerSpec(TokenizerKind.SENTENCEPIECE_FILE, vocab, "none")
    return RunSpec(
        model=find_size(size).model(ModelSpec(vocab_size=vocab, attention=attention)),
        objective=ObjectiveSpec(Variant.NLL) if family is Family.ARM else ObjectiveSpec(),
        data=replace(DataSpec(), tokenizer=tokenizer, seq_len=length),
        optim=OptimSpec(global_batch=rows, lr_peak=4e-4),
        hardware=build(HardwareSpec, hardware),
    )


def setting(text: str) -> int | bool | str:
    """The value of a field of the hardware."""
    return text == "true" if text in ("true", "false") else int(text) if text.isdigit() else text


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--size", default="6", help="a size of SMDM's ladder, or LAYERSxWIDTH")
    flags.add_argument("--family", type=Family, default=Family.MDM)
    for name, default in (("rows", 8), ("length", 512), ("vocab", 32000)):
        flags.add_argument(f"--{name}", type=int, default=default)
    flags.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of the run's `hardware`")
    given = flags.parse_args()
    restart_with_huge_pages()
    os.environ.update(with_fast_compiler(os.environ))
    hardware = {key: setting(value) for key, value in (one.split("=") for one in given.set)}
    spec = run_spec(given.size, given.family, given.rows, given.length, given.vocab, hardware)
    tokens_BL = np.random.default_rng(0).integers(0, given.vocab, (given.rows, given.length)).astype(np.int32)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    with jax.set_mesh(mesh):
        serve(spec, tokens_BL, mesh)


class Steps:
    """The steps of a run on one batch, in calls as the training loop makes them."""

    def __init__(self, spec: RunSpec, tokens_BL: np.ndarray, mesh: jax.sharding.Mesh) -> None:
        self.most = steps_in_a_call(spec)
        self._state, self._step = init_state(spec), compile_step(spec)
        self._rate = learning_rate(spec.optim, spec.schedule)
        if self.most == 1:
            self._tokens = global_batch(mesh, tokens_BL.shape, lambda first, last: tokens_BL[first:last])
            self._step.compile(self._state, self._tokens, self._rate)
        else:
            self._tokens = stack_batches(mesh, np.stack([tokens_BL] * self.most))

    def call(self, count: int) -> float:
        """The seconds of a call that makes `count` steps."""
        begun = time.perf_counter()
        if self.most == 1:
            self._state, _ = self._step(self._state, self._tokens, self._rate)
        else:
            self._state, _ = self._step.several(self._state, self._tokens, count, self._rate)
        jax.block_until_ready(self._state)
        return time.perf_counter() - begun

    def call_share(self) -> float:
        """The share of a step's time that is the cost of a call: what calls of one step take longer for each step."""
        one, most = (statistics.median(self.call(count) for _ in range(100)) for count in (1, self.most))
        return (one - most / self.most) / (self.most - 1) / (most / self.most)


def serve(spec: RunSpec, tokens_BL: np.ndarray, mesh: jax.sharding.Mesh) -> None:
    """Answers each number of steps with their seconds, and the end of the input with what the steps took."""
    begun = time.perf_counter()
    steps = Steps(spec, tokens_BL, mesh)
    steps.call(1)
    first = time.perf_counter() - begun
    for line in sys.stdin:
        seconds: list[float] = []
        while len(seconds) < int(line):
            count = min(steps.most, int(line) - len(seconds))
            seconds += [steps.call(count) / count] * count
        print(json.dumps({"seconds": seconds}), flush=True)
    found = {
        "peak_bytes": peak_bytes(),
        "first_step_seconds": first,
        "step_flops": step_flops(spec, FlopConvention.EXACT),
        "jax": jax.__version__,
    }
    print(json.dumps(found | ({"call_share": steps.call_share()} if steps.most > 1 else {})), flush=True)


if __name__ == "__main__":
    main()
