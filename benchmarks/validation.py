"""Forward passes and seconds to a Monte Carlo error of .002 nats in an MDM's validation loss.

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m benchmarks.validation [--lengths 64 512] [--rounds 4] [--run DIR]

Three evaluations of the same rows take turns, each by the program of a run's final evaluation:

* smdm: independent times, eps 1e-3, each token masked by itself, as SMDM's loss;
* counts: the default, antithetic stratified counts over each batch;
* control_variate: each row has its own strata, and the row's other draws predict which tokens are hard.

A forward pass is one row with one mask. The variance of a forward pass is that of the mean over the rows, times the
number of its forward passes; divided by .002^2 it is the number of forward passes to that error. It is measured from
the spread of all rounds, each of which has 32 draws of each row. The error of a ratio is a bootstrap over rows (over
passes for `counts`, where the rows of a batch share their levels). The spread does not depend on the machine.

Then the evaluations are timed in turn on one batch, after compilation. A forward pass costs SMDM a head over all
positions, and the others a head over half of them. The seconds are the median of the rounds, and their ratios the
median of the rounds' ratios, so that a machine that slows down for a while favours none. Let nothing else run then.

At last an evaluation with `evaluation.max_se` = .002 ends by itself. Its seconds have the compilation in them.

`benchmarks/estimator_variance.py` has the models (2x64 on bytes, trained at first use in runs/estimator_variance), the
parts of the variance that each step removes, and the check of the reported errors. The result stands in
benchmarks/results/validation.json, by the machine's name.

Result on two CPU cores, 64 rows of 512 tokens, three rounds: SMDM's needs 76,600 forward passes (587 s), `counts` 7,900
(79 s), 9.7 +- 2.1 times fewer, and `control_variate` 2,350 (16 s), 32.6 +- 2.9 times fewer.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.estimator_variance import DESIGNS, TRAINED, Design, contributions, ratio, trained
from benchmarks.machine import add_results
from mdm_jax.command import aligned
from mdm_jax.data.corpus import open_corpus
from mdm_jax.evaluate import nelbo
from mdm_jax.spec import (
    Cutoff,
    Estimator,
    EvaluationSpec,
    Family,
    LevelSampler,
    ObjectiveSpec,
    Variant,
    evaluated_loss,
)
from mdm_jax.trained.load import load
from mdm_jax.trained.model import Model

RESULT = Path(__file__).parent / "results" / "validation.json"
MAX_SE = 0.002
DRAWS, TIMED_DRAWS, BATCH = 32, 16, 64
EVALUATED_TOKENS = 1 << 15
MOST_DRAWS = 1 << 10
SMDM_LOSS = ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.IID, cutoff=Cutoff.SMDM)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to evaluate.

    Attributes:
        objective: the loss whose masks are drawn.
        estimator: of the evaluation.
        design: tells how many draws make an independent estimate, and whether a batch's rows share their levels.
    """

    objective: ObjectiveSpec
    estimator: Estimator
    design: Design


CONTESTANTS = {
    "smdm": Contestant(SMDM_LOSS, Estimator.COUNTS, DESIGNS["smdm"]),
    "counts": Contestant(evaluated_loss(Family.MDM), Estimator.COUNTS, DESIGNS["antithetic counts"]),
    "control_variate": Contestant(evaluated_loss(Family.MDM), Estimator.CONTROL_VARIATE, DESIGNS["control variate"]),
}


@contextmanager
def drawn_as(objective: ObjectiveSpec, seed: int) -> Iterator[None]:
    """Evaluations draw for this loss, with these masks. Outside benchmarks all evaluations have one loss and seed."""
    before = nelbo.evaluated_loss, nelbo.DRAW_SEED
    nelbo.evaluated_loss, nelbo.DRAW_SEED = (lambda family: objective), seed
    try:
        yield
    finally:
        nelbo.evaluated_loss, nelbo.DRAW_SEED = before


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What one evaluation found. `estimate_PS` has independent estimates of each row."""

    summary: nelbo.Evaluation
    seconds: float
    estimate_PS: np.ndarray


def evaluated(model: Model, rows: np.ndarray, one: Contestant, draws: int, seed: int, max_se: float = 0.0) -> Evaluated:
    """One evaluation of the rows, with the masks of this seed."""
    assert model.run is not None
    evaluation = EvaluationSpec(rows.size, draws, BATCH, estimator=one.estimator, max_se=max_se)
    spec, losses = dataclasses.replace(model.run, evaluation=evaluation), list[np.ndarray]()
    with drawn_as(one.objective, seed):
        begun = time.perf_counter()
        summary = nelbo.evaluate(model._params, spec, rows, model._mesh, finished=losses.append)
        seconds = time.perf_counter() - begun
        loss_PSR = losses[-1].reshape(-1, len(rows), evaluation.group_draws)
        return Evaluated(summary, seconds, nelbo.in_row_order(loss_PSR.mean(2, dtype=np.float64)))


def forward_passes(model: Model, rows: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Forward passes to the error under each contestant, and how many fewer than SMDM's."""
    found = {name: list[np.ndarray]() for name in CONTESTANTS}
    for seed, (name, one) in itertools.product(range(rounds), CONTESTANTS.items()):
        found[name].append(evaluated(model, rows, one, DRAWS, seed).estimate_PS)
        print(f"  round {seed + 1} of {rounds}: {name} {found[name][-1].mean():.4f} nats", flush=True)
    estimate_PS = {name: np.concatenate(parts) for name, parts in found.items()}
    spread = {name: contributions(estimate_PS[name], one.design) for name, one in CONTESTANTS.items()}
    table = {}
    for name, variance in spread.items():
        fewer, error = ratio(spread["smdm"], variance)
        numbers = {"loss": estimate_PS[name].mean(), "variance": variance.mean()}
        numbers |= {"forward_passes": variance.mean() / MAX_SE**2, "fewer": fewer, "fewer_se": error}
        table[name] = {key: float(value) for key, value in numbers.items()}
    return table


def seconds_a_pass(model: Model, rows: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a forward pass under each contestant, and their ratio to SMDM's."""
    found = {name: list[float]() for name in CONTESTANTS}
    for turn in range(rounds + 1):  # the first compiles
        for name in np.roll(list(CONTESTANTS), turn):
            found[name].append(evaluated(model, rows, CONTESTANTS[name], TIMED_DRAWS, turn).seconds)
    return {
        name: {
            "pass_seconds": statistics.median(seconds[1:]) / (len(rows) * TIMED_DRAWS),
            "pass_ratio": statistics.median(a / b for a, b in zip(seconds[1:], found["smdm"][1:], strict=True)),
        }
        for name, seconds in found.items()
    }


def until_error(model: Model, rows: np.ndarray) -> dict[str, float]:
    """A run's evaluation that ends when its error is small enough. The seconds have its compilation in them."""
    found = evaluated(model, rows, CONTESTANTS["control_variate"], MOST_DRAWS, nelbo.DRAW_SEED, MAX_SE)
    summary = found.summary
    numbers = {"draws": summary.mc_samples, "forward_passes": summary.mc_samples * len(rows)}
    return {**numbers, "seconds": found.seconds, "se_mc": summary.se_mc, "loss": summary.loss}


def measure(model: Model, rows: np.ndarray, rounds: int) -> dict[str, Any]:
    """The result of one model: a row for each contestant, and the evaluation that ends by itself."""
    with jax.set_mesh(model._mesh):
        passes = forward_passes(model, rows, rounds)
        print("  timing begins", flush=True)
        timed = seconds_a_pass(model, rows[:BATCH], rounds)
        ended = until_error(model, rows)
        print("  timing ends", flush=True)
    for name, row in passes.items():
        row |= timed[name] | {"seconds": row["forward_passes"] * timed[name]["pass_seconds"]}
        row["fewer_seconds"] = row["fewer"] / row["pass_ratio"]
    return {"rows": len(rows), "rounds": rounds, "evaluations": passes, "until_error": ended}


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The table as text."""
    header = ("evaluation", "loss", "passes", "fewer", "seconds", "fewer", "ms a pass")
    rows = [
        (
            name,
            f"{row['loss']:.4f}",
            f"{row['forward_passes']:,.0f}",
            f"{row['fewer']:.1f} ± {row['fewer_se']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['fewer_seconds']:.1f}",
            f"{1e3 * row['pass_seconds']:.2f}",
        )
        for name, row in found.items()
    ]
    return aligned([header, *rows], left=("evaluation",))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--lengths", type=int, nargs="+", default=list(TRAINED), choices=list(TRAINED))
    flags.add_argument(
        "--run", metavar="DIR", help="folder of a finished MDM to measure in place of those trained here"
    )
    flags.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of those trained here")
    flags.add_argument("--tokens", type=int, default=EVALUATED_TOKENS, help="validation tokens (default: %(default)s)")
    flags.add_argument("--rounds", type=int, default=4, help="at least 2 (default: %(default)s)")
    return flags


def main() -> None:
    """Measures each length, prints the tables, and adds them to the results."""
    flags = parser()
    given = flags.parse_args()
    if given.rounds < 2:
        flags.error(f"--rounds {given.rounds}: must be at least 2")
    models = [load(given.run)] if given.run else (trained(length, given.set) for length in given.lengths)
    for model in models:
        assert model.run is not None
        rows = np.asarray(open_corpus(model.run.data).evaluation_rows(given.tokens))
        rows = rows[: len(rows) // BATCH * BATCH]
        if not len(rows):
            flags.error(f"--tokens {given.tokens}: must be at least {BATCH} rows of {model.seq_len} tokens")
        print(f"{model.run.run_id}, {len(rows)} rows of {model.seq_len} tokens", flush=True)
        found = measure(model, rows, given.rounds)
        ended = found["until_error"]
        print(*lines(found["evaluations"]), sep="\n")
        print(
            f"max_se={MAX_SE}: {ended['draws']} draws, {ended['seconds']:.1f} s, error {ended['se_mc']:.5f}", flush=True
        )
        add_results(RESULT, {f"{model.seq_len} tokens": {"run_id": model.run.run_id, **found}})


if __name__ == "__main__":
    main()
