"""How much faster kept keys and values make generation: the cache of an ARM, and the prefix and dual caches of an MDM.

    python -m benchmarks.generation [--repeats 5]

The program takes about four minutes, and writes benchmarks/results/generation.json. The model is SMDM's
size 6 (6.3M parameters, 6 layers) with initial weights and the vocabulary of bytes, on rows of 512 tokens. Initial
weights take as long as trained ones, because no token ends a row here.

The ARM reads a prompt of 448 tokens and writes 64. Without its cache each token takes a pass over the whole row, whose
length is fixed. The MDM fills a row that is all MASK in blocks of 32 tokens, in the order of confidence. All its caches
make the same number of steps. The programs are compiled first. The settings are timed in turn, so that the machine's
other work meets all of them. The speed-up is the median over the repeats of the ratio of two timings that follow each
other, with its range. It is given by the clock, and by the time of the processors, which other work disturbs less.
`benchmarks/cache_quality.py` measures what the MDM's caches do to the text.

Result (five repeats, beside other work; all programs kept one core busy): the ARM is 15.1 times as fast with its cache.
The MDM is 3.0 times as fast with the dual cache at 4 steps a block, and 5.9 times at 16. The prefix cache gives 1.2 and
1.5, because it reads five eighths of the row in the mean. No ratio is more than a tenth away from these medians.
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from isoflop.ladder import SMDM
from mdm_jax.command import DONE, aligned, exit_code, new_parser
from mdm_jax.devices.sharding import make_mesh, place
from mdm_jax.files.storage import write_atomic
from mdm_jax.model.transformer import Transformer
from mdm_jax.sample.canvas import Canvas, Filled
from mdm_jax.sample.causal import continue_rows
from mdm_jax.sample.denoise import denoise
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.rows import Row, canvas_of
from mdm_jax.sample.samplers import KINDS, Sampler
from mdm_jax.sample.trunk_cache import TrunkCache
from mdm_jax.spec import BYTES_VOCAB_SIZE, Attention, ModelSpec

RESULT = Path(__file__).resolve().parent / "results" / "generation.json"
Program = Callable[..., Filled]
CLOCKS = ("wall", "cpu")
SAMPLER = Sampler.CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Size:
    """What is timed.

    Attributes:
        model: shape of the model, an MDM's.
        length: tokens of a row.
        new: tokens that the ARM writes after its prompt.
        rows: rows of the MDM's batch.
        block: tokens of a block.
        steps: the numbers of steps of a block that are timed.
    """

    model: ModelSpec
    length: int = 512
    new: int = 64
    rows: int = 1
    block: int = 32
    steps: tuple[int, ...] = (4, 16)


def canvas(size: Size, rows: int, prompt: int, steps: int) -> Canvas:
    """Rows with a prompt of random tokens, and without an EOS."""
    vocab = size.model.vocab_size
    ids_BL = np.full((rows, size.length), vocab, np.int32)
    ids_BL[:, :prompt] = np.random.default_rng(0).integers(0, vocab, (rows, prompt))

    each = [Row(ids_L, seed, steps) for seed, ids_L in enumerate(ids_BL)]
    options = SamplingOptions(SAMPLER, block=size.block)
    return canvas_of(each, size.length, vocab, options, eos_id=None)


def initial(model: ModelSpec) -> Transformer:
    """Initial weights on the ambient mesh."""
    return jax.jit(lambda: place(Transformer(model, jax.random.key(0))))()


def arm_programs(size: Size) -> dict[str, Program]:
    """The ARM's continuation without its cache, and with it."""
    model = dataclasses.replace(size.model, attention=Attention.CAUSAL)
    weights = initial(model)
    return {
        "with its cache" if cached else "none": functools.partial(continue_rows, weights, model=model, cached=cached)
        for cached in (False, True)
    }


def mdm_programs(size: Size) -> dict[str, Program]:
    """The MDM's sampler without a cache, and with each one."""
    options = {"model": size.model, "rule": KINDS[SAMPLER].rule, "window": size.block}
    weights = initial(size.model)
    return {str(cache): functools.partial(denoise, weights, cache=cache, **options) for cache in TrunkCache}


def timed(programs: dict[str, Program], rows: Canvas, repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each program in each repeat, and its speed-up over the first one: median and range of the ratios.

    The seconds of the clock and those of all processors together are recorded, and the speed-up in each of them.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            begin = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(canvas=rows))
            seconds[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    first = seconds[next(iter(programs))]
    found: dict[str, dict[str, Any]] = {}
    for name, own in seconds.items():
        found[name] = {}
        for c, clock in enumerate(CLOCKS):
            ratios = [before[c] / after[c] for before, after in zip(first, own, strict=True)]
            spread = {"speedup": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
            each = [one[c] for one in own]
            found[name][clock] = {"seconds": each, "median_s": statistics.median(each), **spread}
    return found


def measure(size: Size, repeats: int) -> dict[str, Any]:
    """The timings of both families, on one device. Rows with a single new token compile each program first."""
    found: dict[str, Any] = {"mdm": {}}
    with jax.set_mesh(make_mesh(1, 1, jax.devices()[:1])):
        arm, mdm = arm_programs(size), mdm_programs(size)
        for programs, rows in ((arm, 1), (mdm, size.rows)):
            timed(programs, canvas(size, rows, size.length - 1, 1), 1)
        found["arm"] = timed(arm, canvas(size, 1, size.length - size.new, size.new), repeats)
        for steps in size.steps:
            rows = canvas(size, size.rows, 0, steps * (size.length // size.block))
            found["mdm"][str(steps)] = timed(mdm, rows, repeats)
    shape = {name: value for name, value in dataclasses.asdict(size).items() if name != "model"}
    machine = {"processors": os.cpu_count(), "load_average_1min": os.getloadavg()[0]}
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    return {**found, "size": shape, "repeats": repeats, "machine": machine, "versions": versions}


def lines_of(found: dict[str, Any]) -> list[str]:
    """The table of a measurement."""
    table = [["model", "steps a block", "cache", *(f"{clock} s" for clock in CLOCKS)]]
    table[0] += [f"faster by {clock}" for clock in CLOCKS]
    parts = [("arm", "", found["arm"]), *(("mdm", steps, runs) for steps, runs in found["mdm"].items())]
    for family, steps, runs in parts:
        for name, one in runs.items():
            times = [f"{one[clock]['median_s']:.2f}" for clock in CLOCKS]
            ratios = ["{speedup:.2f} [{least:.2f}, {most:.2f}]".format(**one[clock]) for clock in CLOCKS]
            table.append([family, steps, name, *times, *ratios])
    return aligned(table, {"model", "cache"})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("benchmarks.generation", __doc__)
    flags.add_argument("--repeats", type=int, default=5, help="timings of each setting (%(default)s)")
    flags.add_argument("--out", type=Path, default=RESULT, help="JSON file to write (%(default)s)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the file. Exit code: 0 done, 1 an error (one line says which)."""
    given = parser().parse_args(argv)

    def work() -> int:
        size = Size(SMDM["6"].model(ModelSpec(vocab_size=BYTES_VOCAB_SIZE)))
        found = measure(size, given.repeats)
        print("\n".join(lines_of(found)))
        write_atomic(given.out, json.dumps(found, indent=1) + "\n")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
