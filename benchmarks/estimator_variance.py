"""The variance of the NELBO's estimators, and of the loss's gradient, at equal forward passes.

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m benchmarks.estimator_variance [--lengths 64 512] [--passes 128] [--rows 32] [--run DIR]

An estimator draws masks for a fixed set of validation rows of a trained model. A forward pass is one row with one mask.
The variance a forward pass is the variance of the estimated mean over the rows, times the number of its forward passes.
The table has SMDM's variance (independent times, eps 1e-3, each token masked by itself) over that of each other
estimator. So a ratio of 20 means that 20 times fewer forward passes reach the same error. The error of a ratio is a
bootstrap over rows, or over batches where an estimator shares its levels among the rows of a batch.

The estimators, each of which adds one thing:

* smdm, shifted, stratified: times of the batch, continuous form;
* counts, iid: the number of masked tokens is drawn in place of a time;
* antithetic counts: rows 2i and 2i+1 mask K and L+1-K tokens, stratified over the batch: the evaluation's default;
* complementary pairs: one row masks K tokens, and then the others and one of the K;
* own strata: each row has its own strata over 16 draws, in pairs of K and L+1-K;
* narrow strata: the strata are narrow where few tokens are masked (optimal allocation);
* control variate: other draws predict which tokens are hard; with equal strata, and then with narrow ones.

The last is the evaluation's estimator `control_variate`, in groups of 16 draws (of 8 where `mc_samples` is 16). The
variances of the steps decompose SMDM's: random numbers of masked tokens, differences between levels, the choice of the
masked tokens (content), and the rest, which is the effect of a token's context, less the allocation.

The gradient's variance is the mean squared distance from the mean gradient, over the mean gradient's squared norm, of a
batch of rows and a forward pass. The control variate has no gradient.

`--honesty N` repeats the evaluation N times, and compares the mean reported error with the actual one.

Models: 2x64 on bytes, 6000 steps of 16 rows (L = 64) and 3500 steps of 4 rows (L = 512), in runs/estimator_variance.
Training takes about five minutes each on two idle CPU cores, and each table about ten.

Result (results/estimator_variance.json; 64 passes, 64 rows at L = 64 and 24 rows at L = 512): the ratios at L = 64 and
512 are 5.3 +- 1.3 and 8.9 +- 2.5 for the default, 8.9 +- .8 and 26 +- 4 for the control variate in groups of 8 draws,
and 9.1 +- 1.3 and 38 +- 8 in groups of 16. The gradient's variance depends little on the sampler: the ratios are .8 to
1.7, with errors of .1 to .5. Reported over actual errors in 200 evaluations of a 2x28 model at L = 64: .98 for the
default, and 1.03 for the control variate.
"""

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mdm_jax.config import load_run
from mdm_jax.data.corpus import open_corpus
from mdm_jax.devices.sharding import global_batch
from mdm_jax.evaluate import nelbo
from mdm_jax.evaluate.control_variate import controlled_losses, draw_weights, group_counts
from mdm_jax.model.transformer import hidden
from mdm_jax.objectives.loss import Draw, loss
from mdm_jax.objectives.masking import antithetic_counts, count_masks, independent_masks, noise_times
from mdm_jax.objectives.vocab_loss import token_nats
from mdm_jax.spec import Estimator, EvaluationSpec, HardwareSpec, LevelSampler, ObjectiveSpec, RunSpec, Variant
from mdm_jax.trained.load import load
from mdm_jax.trained.model import Model

CONFIG = "experiments/quickstart.py"
RUNS = Path("runs/estimator_variance")
RESULTS = Path(__file__).parent / "results" / "estimator_variance.json"
SMDM_EPS = 1e-3
VALIDATION_TOKENS = 1 << 17
"""The rows are chosen among those of this many tokens."""
BATCH_TOKENS = 1 << 14
"""Tokens of a forward pass of the device."""
GRADIENT_ROWS = 8
HONEST_ROWS, HONEST_BATCH = 64, 64
TRAINED = {
    64: {"global_batch": 16, "lr_peak": 2.5e-3, "steps": 6000},
    512: {"global_batch": 4, "lr_peak": 1.8e-3, "steps": 3500},
}

Masks = tuple[jax.Array, jax.Array]
"""Masks `[S R, L]` of R draws of each row, row by row, and the weight `[S R]` of each draw's summed nats."""


@dataclass(frozen=True)
class Design:
    """One estimator: how it draws masks, and what it does with the nats.

    Attributes:
        draw: `(key, rows, length)` to masks and weights; the sum of weight and nats estimates the sum over rows.
        draws: draws of each row in one estimate.
        shares_levels: whether the rows of a batch share their levels, so that their errors are not independent.
        narrowing: of the strata, if a control variate is applied to groups of draws.
    """

    draw: Callable[[jax.Array, int, int], Masks]
    draws: int = 1
    shares_levels: bool = False
    narrowing: float | None = None


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def drawn_masks(design: Design, key: jax.Array, rows: int, length: int) -> Masks:
    return design.draw(key, rows, length)


def smdm(key: jax.Array, rows: int, length: int) -> Masks:
    level, chosen = jax.random.split(key)
    p_B = (1 - SMDM_EPS) * jax.random.uniform(level, (rows,)) + SMDM_EPS
    return independent_masks(chosen, p_B, length), 1 / (p_B * length)


def timed(sampler: LevelSampler, key: jax.Array, rows: int, length: int) -> Masks:
    level, order, chosen = jax.random.split(key, 3)
    t_B = jax.random.permutation(order, noise_times(level, rows, sampler))
    return independent_masks(chosen, t_B, length), 1 / (t_B * length)


def counted(count_B: jax.Array, key: jax.Array, length: int) -> Masks:
    return count_masks(key, count_B, length), 1 / count_B


def iid_counts(key: jax.Array, rows: int, length: int) -> Masks:
    level, chosen = jax.random.split(key)
    return counted(jax.random.randint(level, (rows,), 1, length + 1), chosen, length)


def shared_counts(key: jax.Array, rows: int, length: int) -> Masks:
    level, order, chosen = jax.random.split(key, 3)
    return counted(jax.random.permutation(order, antithetic_counts(level, rows, length)), chosen, length)


def complementary(key: jax.Array, rows: int, length: int) -> Masks:
    level, chosen = jax.random.split(key)
    count_S = jax.random.randint(level, (rows,), 1, length + 1)
    rank_SL = jnp.argsort(jax.random.uniform(chosen, (rows, length)), -1)
    mask_S2L = jnp.stack([rank_SL < count_S[:, None], rank_SL >= count_S[:, None] - 1], 1)
    count_S2 = jnp.stack([count_S, length + 1 - count_S], 1)
    return mask_S2L.reshape(-1, length), 1 / (2 * count_S2).reshape(-1)


def own_strata(draws: int, narrowing: float, key: jax.Array, rows: int, length: int) -> Masks:
    level, chosen = jax.random.split(key)
    count_B = group_counts(level, rows, draws, length, narrowing).reshape(-1)
    mask_BL, weight_B = counted(count_B, chosen, length)
    return mask_BL, weight_B * jnp.tile(draw_weights(draws, narrowing) / draws, rows)


def strata(draws: int, narrowing: float, controlled: bool = False) -> Design:
    return Design(functools.partial(own_strata, draws, narrowing), draws, narrowing=narrowing if controlled else None)


DESIGNS = {
    "smdm": Design(smdm),
    "shifted": Design(functools.partial(timed, LevelSampler.SHIFTED), shares_levels=True),
    "stratified": Design(functools.partial(timed, LevelSampler.STRATIFIED), shares_levels=True),
    "counts, iid": Design(iid_counts),
    "antithetic counts": Design(shared_counts, shares_levels=True),
    "complementary pairs": Design(complementary, 2),
    "own strata": strata(16, 1.0),
    "narrow strata": strata(16, 2.0),
    "control variate, equal strata": strata(16, 1.0, controlled=True),
    "control variate, 8 draws": strata(8, 2.0, controlled=True),
    "control variate": strata(16, 2.0, controlled=True),
}
STEPS = {
    "number of masked tokens": ("smdm", "counts, iid"),
    "between levels": ("counts, iid", "own strata"),
    "content": ("own strata", "control variate, equal strata"),
    "allocation": ("control variate, equal strata", "control variate"),
    "the rest": ("control variate", None),
}
"""The parts of SMDM's variance: the variance of one design less that of another."""


class Measured:
    """A trained model and its fixed rows."""

    def __init__(self, model: Model, rows_SL: np.ndarray):
        self.rows_SL = rows_SL
        self.params, self.spec, self.mesh = model._params, model.spec, model._mesh

    @functools.cached_property
    def _nats(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        def nats(inputs_BL: jax.Array, tokens_BL: jax.Array) -> jax.Array:
            h_ND = hidden(self.params, inputs_BL, self.spec, HardwareSpec()).reshape(-1, self.spec.d_model)
            head_DV = self.params.head[...]
            return token_nats(h_ND, tokens_BL.reshape(-1), head_DV, self.spec.vocab_size).reshape(tokens_BL.shape)

        return jax.jit(nats)

    def _put(self, x_BL: np.ndarray) -> jax.Array:
        return global_batch(self.mesh, (x_BL.shape[0], x_BL.shape[1]), lambda first, last: x_BL[first:last])

    def _drawn(self, design: Design, key: jax.Array, rows_SL: np.ndarray) -> tuple[np.ndarray, ...]:
        """Inputs, tokens and masks of all draws of the rows, and the weight of each draw's summed nats."""
        mask_BL, weight_B = (np.asarray(x) for x in drawn_masks(design, key, *rows_SL.shape))
        tokens_BL = np.repeat(rows_SL, design.draws, 0)
        return np.where(mask_BL, self.spec.vocab_size, tokens_BL).astype(np.int32), tokens_BL, mask_BL, weight_B

    def nats(self, inputs_BL: np.ndarray, tokens_BL: np.ndarray) -> np.ndarray:
        """The nats of all tokens."""
        size = BATCH_TOKENS // tokens_BL.shape[1]
        found = [
            np.asarray(self._nats(self._put(inputs_BL[i : i + size]), self._put(tokens_BL[i : i + size])))
            for i in range(0, len(tokens_BL), size)
        ]
        return np.concatenate(found)

    def losses(self, design: Design, key: jax.Array) -> np.ndarray:
        """One estimate of each row's loss, nats per token; their mean estimates the loss of the rows."""
        rows, length = self.rows_SL.shape
        inputs_BL, tokens_BL, mask_BL, weight_B = self._drawn(design, key, self.rows_SL)
        nats_BL = np.where(mask_BL, self.nats(inputs_BL, tokens_BL), 0)
        if design.narrowing is None:
            return (nats_BL.sum(1) * weight_B).reshape(rows, -1).sum(1)
        shape = rows, design.draws, length
        grouped = jnp.asarray(nats_BL.reshape(shape)), jnp.asarray(mask_BL.reshape(shape))
        return np.asarray(controlled_losses(*grouped, design.narrowing), np.float64).mean(1)

    @functools.cached_property
    def _gradient(self) -> Callable[[Draw], jax.Array]:
        plain = ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.IID)

        def gradient(drawn: Draw) -> jax.Array:
            def of(params) -> jax.Array:
                run = functools.partial(hidden, params, spec=self.spec, hardware=HardwareSpec())
                return loss(drawn, run, params.head[...], plain, self.spec.vocab_size)

            return jax.grad(of)(self.params)

        return jax.jit(gradient)

    def gradient(self, design: Design, key: jax.Array, rows_SL: np.ndarray) -> np.ndarray:
        """One estimate of the gradient of the rows' mean loss, all weights in one array."""
        rows = len(rows_SL)
        inputs_BL, tokens_BL, mask_BL, weight_B = self._drawn(design, key, rows_SL)
        weight_BL = (mask_BL * weight_B[:, None] / rows).astype(np.float32)
        total = np.zeros(())
        for i in range(0, len(tokens_BL), rows):
            drawn = Draw(*(self._put(x[i : i + rows]) for x in (inputs_BL, tokens_BL, weight_BL)))
            total = total + np.asarray(ravel_pytree(jax.device_get(self._gradient(drawn)))[0], np.float64)
        return total


def contributions(estimate_PS: np.ndarray, design: Design) -> np.ndarray:
    """Numbers whose mean is the variance a forward pass, of P independent estimates of S rows."""
    passes, rows = estimate_PS.shape
    if design.shares_levels:
        mean_P = estimate_PS.mean(1)
        return (mean_P - mean_P.mean()) ** 2 * passes / (passes - 1) * rows
    return estimate_PS.var(0, ddof=1) * design.draws


def ratio(base: np.ndarray, own: np.ndarray, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """The ratio of two means, and its standard error by the bootstrap."""
    rng = np.random.default_rng(seed)
    base_N, own_N = (x[rng.integers(0, len(x), (resamples, len(x)))].mean(1) for x in (base, own))
    return float(base.mean() / own.mean()), float((base_N / own_N).std())


def loss_table(measured: Measured, passes: int) -> dict[str, dict[str, float]]:
    """The variance of the loss a forward pass for each design, and SMDM's over it."""
    found, table = {}, {}
    for name, design in DESIGNS.items():
        began = time.perf_counter()
        repetitions = max(4, passes // design.draws)
        keys = jax.random.split(jax.random.key(len(found)), repetitions)
        estimate_PS = np.stack([measured.losses(design, key) for key in keys])
        found[name] = contributions(estimate_PS, design)
        times, error = ratio(found["smdm"], found[name])
        row = {"loss": estimate_PS.mean(), "variance": found[name].mean(), "ratio": times, "ratio_se": error}
        table[name] = {key: float(value) for key, value in row.items()}
        said = f"{name:32s} {estimate_PS.mean():.4f} nats  {times:6.2f} +- {error:.2f}"
        print(f"  {said}  ({time.perf_counter() - began:.0f} s)", flush=True)
    return table


def parts(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """The shares of SMDM's variance that each step removes, and that remain."""
    whole = table["smdm"]["variance"]
    return {
        name: (table[more]["variance"] - (table[less]["variance"] if less else 0)) / whole
        for name, (more, less) in STEPS.items()
    }


def gradient_table(measured: Measured, passes: int, batches: int) -> dict[str, dict[str, float]]:
    """The variance of the gradient a forward pass over its squared norm, and SMDM's over it."""
    found, table = dict[str, np.ndarray](), {}
    for name, design in DESIGNS.items():
        if design.narrowing is not None:
            continue
        spread = []
        for b in range(batches):
            rows_SL = measured.rows_SL[b * GRADIENT_ROWS : (b + 1) * GRADIENT_ROWS]
            keys = jax.random.split(jax.random.key(b), max(4, passes // design.draws))
            estimate_PN = np.stack([measured.gradient(design, key, rows_SL) for key in keys])
            mean_N = estimate_PN.mean(0)
            square_P = ((estimate_PN - mean_N) ** 2).sum(1) * len(keys) / (len(keys) - 1)
            norm = max((mean_N**2).sum() - square_P.mean() / len(keys), 1e-30)
            spread.append(square_P * GRADIENT_ROWS * design.draws / norm)
        found[name] = np.concatenate(spread)
        times, error = ratio(found["smdm"], found[name])
        table[name] = {"variance": float(found[name].mean()), "ratio": times, "ratio_se": error}
        print(f"  {name:32s} gradient {found[name].mean():8.3g}  {times:6.2f} +- {error:.2f}", flush=True)
    return table


def honesty(measured: Measured, run: RunSpec, repetitions: int) -> dict[str, object]:
    """The mean reported error and the actual one of repeated evaluations, for each estimator."""
    table: dict[str, object] = {"run_id": run.run_id, "repetitions": repetitions}
    rows_SL = measured.rows_SL[:HONEST_ROWS]
    for estimator in Estimator:
        evaluation = EvaluationSpec(rows_SL.size, 16, HONEST_BATCH, estimator=estimator)
        losses, errors = [], []
        for seed in range(repetitions):
            nelbo.DRAW_SEED = seed  # all evaluations share their draws, except here
            found = nelbo.evaluate(measured.params, replace(run, evaluation=evaluation), rows_SL, measured.mesh)
            losses.append(found.loss)
            errors.append(found.se_mc)
        actual = float(np.std(losses, ddof=1))
        row = {"reported": float(np.mean(errors)), "actual": actual, "ratio": float(np.mean(errors)) / actual}
        table[estimator.value] = row
        print(f"  {estimator.value:32s} reported {row['reported']:.5f}  actual {actual:.5f}  {row['ratio']:.3f}")
    return table


def settings(length: int) -> list[str]:
    """The run that is measured at a row length, as changes to the quickstart experiment."""
    plan = TRAINED[length]
    shape = {"n_layers": 2, "d_model": 64, "n_heads": 2, "d_ffn": 256}
    optim = {key: plan[key] for key in ("global_batch", "lr_peak")}
    schedule = {"steps": plan["steps"], "warmup_steps": 200}
    evaluation = {"eval_tokens": 32768, "mc_samples": 4, "batch": 16}
    sections = {"model": shape, "optim": optim, "schedule": schedule, "evaluation": evaluation}
    out = [f"run.{section}.{key}={value}" for section, keys in sections.items() for key, value in keys.items()]
    return [f"run.data.seq_len={length}", "run.hardware.layers=unroll", "run.hardware.checkpoint_every=500", *out]


def trained(length: int, extra: list[str]) -> Model:
    """The run of that row length, which is trained first if it is not finished."""
    changes = [*settings(length), *extra]
    folder = RUNS / load_run(CONFIG, changes).run_id
    command = [sys.executable, "-m", "mdm_jax.main", "--config", CONFIG, "--runs", str(RUNS), "--set", *changes]
    subprocess.run(command, check=True)
    return load(folder)


def measure(model: Model, given: argparse.Namespace) -> dict[str, object]:
    assert model.run is not None
    corpus = open_corpus(model.run.data)
    rows_SL = corpus.evaluation_rows(VALIDATION_TOKENS)
    chosen = np.random.default_rng(0).permutation(len(rows_SL))[: given.rows]
    measured = Measured(model, np.asarray(rows_SL)[chosen])
    print(f"{model}, {given.rows} rows", flush=True)
    with jax.set_mesh(measured.mesh):
        table = loss_table(measured, given.passes)
        shares = parts(table)
        out: dict[str, object] = {"loss": table, "parts": shares}
        print("  " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
        if given.batches:
            out["gradient"] = gradient_table(measured, given.gradient_passes, given.batches)
        if given.honesty:
            out["honesty"] = honesty(measured, model.run, given.honesty)
    return {"run_id": model.run.run_id, "rows": given.rows, "passes": given.passes, **out}


def main() -> None:
    """Measures each length, prints the tables, and adds them to the results."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.estimator_variance")
    made.add_argument("--lengths", type=int, nargs="+", default=list(TRAINED), choices=list(TRAINED))
    made.add_argument("--run", help="folder of a finished run to measure in place of those that are trained here")
    made.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as run.data.directory=DIR")
    made.add_argument("--rows", type=int, default=32, help="validation rows, even (default: %(default)s)")
    made.add_argument("--passes", type=int, default=128, help="forward passes of each row (default: %(default)s)")
    made.add_argument("--batches", type=int, default=2, help="batches for the gradient (default: %(default)s)")
    made.add_argument("--gradient-passes", type=int, default=64, help="forward passes of each of their rows")
    made.add_argument("--honesty", type=int, default=0, metavar="N", help="repeat the evaluation N times")
    given = made.parse_args()
    if given.rows < 2 or given.rows % 2 or not 0 <= given.batches <= given.rows // GRADIENT_ROWS:
        made.error(f"--rows {given.rows}: must be even, at least {GRADIENT_ROWS} for each of --batches {given.batches}")
    if given.honesty and (given.honesty < 2 or given.rows < HONEST_ROWS):
        made.error(f"--honesty {given.honesty}: must be 0, or at least 2 with at least --rows {HONEST_ROWS}")
    models = [load(given.run)] if given.run else (trained(length, given.set) for length in given.lengths)
    for model in models:
        measured = measure(model, given)
        found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        found[str(model.seq_len)] = found.get(str(model.seq_len), {}) | measured
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
