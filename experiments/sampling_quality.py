"""Quality of generated texts against their cost: an MDM with every sampler, and ARMs with their cache.

    python -m mdm_jax.data.prepare --config experiments/sampling_quality.py
    python -m experiments.sampling_quality --out runs/sampling_quality

The models are in the repository: `experiments/results/{cpu_overnight,sampling_quality}/*.safetensors`, five runs of
`experiments/cpu_overnight.py`. This file's config plans the same five runs again (`python -m isoflop.plan --config
experiments/sampling_quality.py --out runs/sampling_models`). The first command prepares the corpus, whose validation
text is the real text of the table.

| model | training compute (6ND) | validation loss, nats per byte | why |
|---|---|---|---|
| mdm-2x40 | 3e12 | 2.325 (NELBO) | one of the two best MDMs of the sweep |
| arm-1x12-3e10 | 3e10 | 2.308 | equal loss |
| arm-2x40-1e11 | 1e11 | 2.408 | equal size, and the nearest loss at that size |
| arm-2x28-1e12 | 1e12 | 1.727 | nearest to the MDM in compute |
| arm-2x40 | 1e12 | 1.699 | the reference, which writes no text of its own |

Each setting has 128 texts of 128 bytes without a prompt, at temperature 1, in batches of 16. Because the load of a
machine changes in the minutes of the table, `speed.csv` times the main settings again in interleaved rounds, for one
text at a time and for batches of 16.

Hardware: one core of two busy ones. Time: 5 CPU-minutes, of which the interleaved times take one.
Result (± one standard error over texts): first hitting meets the perplexity of the ARM of equal size, 32.5 ± .8, at
32 steps and at equal entropy (2.99 ± .02 against 2.99 ± .03). That is a quarter of the ARM's 115 forward passes. On
this core it takes 5.3 times (one text at a time; 4.9 to 8.9 over seven rounds) and 15 times (batches of 16; 13 to 18)
the ARM's seconds, because a pass over 128 positions costs as much as 19 and 55 cached tokens. SMDM's 1.4 times needs
a device on which such a pass costs 2.6. At equal loss the exact sampler (128 steps) stays above the ARM: 30.4 ± .8
against 26.0 ± .7. Confidence without blocks fills its rows with blanks: perplexity 1.14 at an entropy of .002 nats,
where real text has 6.1 and 2.81 (experiments/results/README.md).
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from isoflop.sweep import curve, default_sweep
from mdm_jax import load
from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.config import default_run, load_run
from mdm_jax.data.corpus import open_corpus
from mdm_jax.files.results import csv_text
from mdm_jax.files.storage import write_atomic
from mdm_jax.sample.report.__main__ import main as report
from mdm_jax.sample.report.settings import parse_sampler
from mdm_jax.spec import DataSpec

RESULTS = Path(__file__).parent / "results"
OWN = RESULTS / "sampling_quality"
MDM, REFERENCE = RESULTS / "cpu_overnight" / "mdm-2x40.safetensors", RESULTS / "cpu_overnight" / "arm-2x40.safetensors"
ARMS = tuple(OWN / f"{name}.safetensors" for name in ("arm-1x12-3e10", "arm-2x40-1e11", "arm-2x28-1e12"))
SAMPLERS = (
    "first_hitting",
    "ancestral",
    "confidence",
    "confidence:block=16",
    "confidence:block=16,cache=dual",
    "margin",
    "entropy",
    "threshold:bound=0.5",
    "threshold:bound=0.9",
    "entropy_bound:bound=0.5",
    "entropy_bound:bound=4",
    "entropy_bound:bound=16",
    "remask_cap",
    "remask_rescale",
    "remask_confidence",
)
STEPS = (8, 16, 32, 64, 128)
TEXTS, BATCH = 128, 16
SAME_SIZE = "arm-2x40-1e11"
TIMED = (
    *((name, steps) for name in ("first_hitting", "ancestral", "confidence") for steps in STEPS),
    ("threshold:bound=0.9", None),
    ("entropy_bound:bound=4", None),
)
ROUNDS = 7


def get_config() -> ml_collections.ConfigDict:
    """The five runs of `cpu_overnight` whose models are used here."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 128
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.curves = [
        curve("mdm", 3e12, "2x40"),
        curve("arm", 3e10, "1x12"),
        curve("arm", 1e11, "2x40"),
        curve("arm", 1e12, "2x28 2x40"),
    ]
    return config.lock()


def write_validation_texts(folder: Path, data: DataSpec) -> Path:
    """The path of a JSONL file with the documents of a corpus's validation split; the last one may be cut."""
    corpus = open_corpus(data)
    ids, eos = corpus.evaluation_rows(corpus.manifest.validation.tokens).reshape(-1), corpus.tokenizer.eos_id
    parts = np.split(ids, np.flatnonzero(ids == eos) + 1)
    texts = filter(None, (corpus.tokenizer.decode(part) for part in parts))
    write_atomic(folder / "validation.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder / "validation.jsonl"


def interleaved(
    settings: Sequence[str], base: str, rounds: int, batch: int, seconds: Callable[[str, int, int], float]
) -> dict[str, tuple[float, float, float, float]]:
    """The median seconds of a text of each setting, and its speed-up over `base`: median, least and most of the rounds.

    Every round times every setting once, so that a load on the machine that comes and goes slows all of them.

    Args:
        settings: their names.
        base: the one of them whose speed is 1.
        rounds: timed rounds; one round before them compiles the programs.
        batch: texts that are written together.
        seconds: the time of one batch of a setting in a round.
    """
    times = np.array([[seconds(name, batch, number) for name in settings] for number in range(rounds + 1)])[1:]
    speed = times[:, [settings.index(base)]] / times
    middle, least, most = np.median(speed, 0), speed.min(0), speed.max(0)
    each = zip(settings, np.median(times, 0) / batch, middle, least, most, strict=True)
    return {name: (float(a), float(b), float(c), float(d)) for name, a, b, c, d in each}


def write_speeds(file: Path) -> None:
    """Writes the interleaved times of `TIMED` samplers and of the ARMs, for one text at a time and for a batch."""
    models = {path.stem: load(path) for path in (MDM, *ARMS)}
    settings: dict[str, tuple[str, dict[str, Any]]] = {path.stem: (path.stem, {}) for path in ARMS}
    for name, steps in TIMED:
        settings[f"{name} {steps or ''}".strip()] = MDM.stem, parse_sampler(name) | ({"steps": steps} if steps else {})

    def seconds(name: str, batch: int, number: int) -> float:
        label, options = settings[name]
        begun = time.perf_counter()
        models[label].generate("", n=batch, seed=batch * number, **options)
        return time.perf_counter() - begun

    lines: list[list[object]] = [["setting", "batch", "seconds", "speed_up", "speed_up_least", "speed_up_most"]]
    for batch in (1, BATCH):
        found = interleaved(list(settings), SAME_SIZE, ROUNDS, batch, seconds)
        lines += [[name, batch, *(f"{number:.4g}" for number in numbers)] for name, numbers in found.items()]
    write_atomic(file, csv_text(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the texts and the report. Exit code: 0 done, 1 an error (one line says which)."""
    flags = new_parser("experiments.sampling_quality", __doc__)
    flags.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    flags.add_argument("--data", default="data/pydoc-bytes", metavar="DIR", help="the prepared corpus (%(default)s)")
    given = flags.parse_args(argv)

    def work() -> int:
        run = load_run(str(Path(__file__)), [f"run.data.directory={given.data}"])
        texts = write_validation_texts(given.out, run.data)
        counts = ["--n", str(TEXTS), "--batch", str(BATCH), "--steps", *map(str, STEPS)]
        where = ["--reference", str(REFERENCE), "--texts", str(texts), "--out", str(given.out)]
        code = report([str(MDM), *map(str, ARMS), *where, *counts, "--samplers", *SAMPLERS])
        if code == DONE:
            write_speeds(given.out / "speed.csv")
        return code

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
