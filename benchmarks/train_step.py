"""Seconds and memory of a train step: ours, and SMDM's in PyTorch on the same machine, in turn.

    python -m benchmarks.train_step --torch PYTHON
    python -m benchmarks.train_step --sizes 6 --families mdm --settings layers=scan layers=unroll,microbatches=2

PYTHON is a Python that has torch; without it only ours is timed. Every contestant is a process of its own that rests
while another one works. They take turns: a round is a few steps of each, in an order that is turned from round to
round. The first step after a rest does not count. A contestant's time is the median of its rounds' medians, and a ratio
is the median of the rounds' ratios, so that a machine that slows down for a while does not favour one of them. Let
nothing else run meanwhile.

The result stands in benchmarks/results/train_step.json, by the machine's name. `share` is the share of the product
peak: necessary FLOPs a second (`exact`), over those of a layer's largest product (`product_peak`, measured in every
round). So a step that needs these FLOPs can be about 1 / `share` times as fast as a contestant, and not more.
`call_share` is the share of a step's time that is the cost of a call, where several steps are made in a call.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.machine import add_results
from isoflop.ladder import find_size
from mdm_jax.command import aligned
from mdm_jax.devices.huge_pages import TUNABLE, VARIABLE

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "train_step.json"


class Case(NamedTuple):
    """What a step of a size trains on, and the steps of a turn."""

    rows: int
    length: int
    vocab: int
    steps: int


CASES = {
    "6": Case(8, 512, 32000, 2),
    "19": Case(4, 512, 32000, 2),
    "1x8": Case(16, 64, 257, 320),
    "2x28": Case(16, 64, 257, 320),
    "4x64": Case(16, 64, 257, 48),
}
"""Each size has a case. SMDM's two have as many rows as fit into a small machine. The tiny ones have batches of the
quickstart."""
HUGE_PAGES, SMALL_PAGES = {VARIABLE: f"{TUNABLE}=1"}, {VARIABLE: f"{TUNABLE}=0"}
DEFAULT_SETTINGS = ("layers=scan", "layers=unroll", "cpu_tuning=false")


class Contestant:
    """A process that makes steps when it is asked to."""

    def __init__(self, name: str, command: list[str], **environment: str):
        self.name, self.rounds = name, list[float]()
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **environment}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, steps: int) -> list[float]:
        """The seconds of so many steps."""
        return self._ask(f"{steps}\n")["seconds"]

    def end(self) -> dict[str, Any]:
        """What the process says at its end."""
        return self._ask(None)

    def _ask(self, line: str | None) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended: it has no answer
            if line is None:
                process.stdin.close()
            else:
                process.stdin.write(line)
                process.stdin.flush()
        answer = process.stdout.readline()
        if line is None or not answer:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()
        if not answer:
            raise ValueError(f"{self.name}: the process ended; see its error above")
        return json.loads(answer)


def contestants(size: str, family: str, settings: list[str], torch: str | None) -> list[Contestant]:
    """Ours with each setting of the hardware, then torch's, eager and compiled.

    Ours has huge pages, and with its first setting also small ones. Torch's has the pages of its users, and huge ones.
    """
    case = CASES[size]
    shape = ["--family", family, "--rows", str(case.rows), "--length", str(case.length), "--vocab", str(case.vocab)]
    own = [sys.executable, str(HERE / "own_step.py"), "--size", size, *shape]
    commands = {setting: [*own, "--set", *setting.split(",")] for setting in settings}
    found = [Contestant(setting, command) for setting, command in commands.items()]
    found.append(Contestant(f"{settings[0]}, small pages", commands[settings[0]], **SMALL_PAGES))
    if torch:
        model = find_size(size)
        given = {"layers": model.n_layers, "heads": model.n_heads, "d-model": model.d_model, "d-ffn": model.d_ffn}
        peer = [torch, str(HERE / "peer_torch.py"), *shape, *(f"--{name}={value}" for name, value in given.items())]
        for name, command in (("torch", peer), ("torch.compile", [*peer, "--compile"])):
            found += [Contestant(name, command), Contestant(f"{name}, huge pages", command, **HUGE_PAGES)]
    return found


def product_peak(d_model: int, rows: int) -> float:
    """FLOP/s of a layer's products up and down, `[rows, d_model]` by `[d_model, 4 d_model]` and back, ten times."""
    x, up = jnp.ones((rows, d_model)), jnp.full((d_model, 4 * d_model), 1e-3)

    @jax.jit
    def chain(x: jax.Array, up: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 10, lambda _, x: (x @ up) @ up.T, x)

    def seconds() -> float:
        begun = time.perf_counter()
        chain(x, up).block_until_ready()
        return time.perf_counter() - begun

    seconds()
    return 10 * 2 * 2 * x.size * up.shape[1] / statistics.median(seconds() for _ in range(7))


def measure(size: str, family: str, settings: list[str], torch: str | None, rounds: int) -> dict[str, Any]:
    """The result of one model: a row for each contestant."""
    all_of_them = contestants(size, family, settings, torch)
    for one in all_of_them:
        one.run(CASES[size].steps)  # compiles, and fills caches
    peaks: list[float] = []
    tokens = CASES[size].rows * CASES[size].length
    for turn in range(rounds):
        peaks.append(product_peak(find_size(size).d_model, tokens))
        first = turn % len(all_of_them)
        for one in all_of_them[first:] + all_of_them[:first]:
            one.run(1)  # not counted: the system has taken back what the process freed before its rest
            one.rounds.append(statistics.median(one.run(CASES[size].steps)))
    ends = {one.name: one.end() for one in all_of_them}
    flops, peak = ends[settings[0]]["step_flops"], statistics.median(peaks)
    return {
        one.name: {
            "seconds": (seconds := statistics.median(one.rounds)),
            "ratio_to_first": statistics.median(a / b for a, b in zip(one.rounds, all_of_them[0].rounds, strict=True)),
            "tokens_per_second": tokens / seconds,
            "share": flops / seconds / peak,
            "product_peak": peak,
            "rounds": one.rounds,
            **ends[one.name],
        }
        for one in all_of_them
    }


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """A model's rows as text."""
    header = ("step", "seconds", "times the first", "tokens/s", "share of peak", "memory, GB")
    rows = [
        (
            name,
            f"{row['seconds']:.3f}",
            f"{row['ratio_to_first']:.2f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share']:.0%}",
            f"{row['peak_bytes'] / 1e9:.2f}",
        )
        for name, row in found.items()
    ]
    return aligned([header, *rows], left=("step",))


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--torch", metavar="PYTHON", help="a Python with torch")
    flags.add_argument("--sizes", nargs="+", default=list(CASES), choices=list(CASES))
    flags.add_argument("--families", nargs="+", default=["mdm", "arm"], choices=["mdm", "arm"])
    flags.add_argument("--settings", nargs="+", default=list(DEFAULT_SETTINGS), help="fields of the run's hardware")
    flags.add_argument("--rounds", type=int, default=5)
    given = flags.parse_args()
    for size in given.sizes:
        for family in given.families:
            found = measure(size, family, given.settings, given.torch, given.rounds)
            name = f"{size} {family}" if "x" in size else f"{size}M {family}"
            add_results(RESULT, {name: found})
            print(
                f"\n{name}, {CASES[size].rows} rows of {CASES[size].length} tokens", *table(found), sep="\n", flush=True
            )


if __name__ == "__main__":
    main()
