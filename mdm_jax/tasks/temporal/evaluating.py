"""Measures the loss of trained models on the slices of a split, and how it grows after the training's end.

    python -m mdm_jax.tasks.temporal evaluate runs/shift/runs/* --slices data/changelogs --out results/shift

RUN is a run's folder, a safetensors file with its tokenizer beside it, or a Hugging Face folder. Runs that differ only
in their seed are one setting. For each setting the table has the loss at distance 0 (texts held out of the training
period's last years), its rise on later texts, and its slope per year, pooled and within groups. Each pair of an MDM and
an ARM is compared on the same texts. Families have losses of different levels, so slopes are also in percent of the
loss at distance 0. OUT gets losses.csv, slopes.csv and shift.svg.

An interrupted evaluation goes on: the same command uses what OUT/scores has already.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence

import numpy as np

from analysis.figures.style import rendered
from analysis.sampling import DRAWS as BOOTSTRAP_DRAWS
from analysis.sampling import SEED, check_sampling
from mdm_jax.command import DONE, new_parser
from mdm_jax.evaluate.draws import DRAWS, check_draws
from mdm_jax.files.storage import as_path, check_writable, write_atomic
from mdm_jax.spec import Likelihood
from mdm_jax.spec.validation import require
from mdm_jax.tasks.temporal.dated import Dated
from mdm_jax.tasks.temporal.figure import plot_shift
from mdm_jax.tasks.temporal.folder import SliceEntry, read_slice, read_split
from mdm_jax.tasks.temporal.report import as_text, losses_csv, results_of, slopes_csv
from mdm_jax.tasks.temporal.scoring import score_slices
from mdm_jax.tasks.temporal.settings import Scored, cluster_sums, clusters_of, scored, settings_of, text_bytes
from mdm_jax.tasks.temporal.shift import Cells
from mdm_jax.trained.load import load

METHODS = (Likelihood.NELBO, Likelihood.LEFT_TO_RIGHT, Likelihood.CONFIDENCE)
LOSSES_FILE, SLOPES_FILE, FIGURE_FILE, SCORES_FOLDER = "losses.csv", "slopes.csv", "shift.svg", "scores"
BASE_YEARS = 2.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.temporal evaluate", __doc__)
    add = flags.add_argument
    add("models", nargs="+", metavar="RUN", help="a run's folder, or a file or folder of weights")
    add("--slices", required=True, metavar="DIR", help="folder that `split` wrote")
    add("--out", required=True, metavar="DIR", help="folder of the results")
    names = [method.value for method in METHODS]
    add("--likelihood", choices=names, default=names[0], help="likelihood of an MDM; an ARM has only one (%(default)s)")
    add("--draws", type=int, default=DRAWS, help="Monte Carlo draws of an MDM's NELBO (%(default)s)")
    years = "held-out texts of so many years before the end are the distance 0 (%(default)s)"
    add("--base-years", type=float, default=BASE_YEARS, metavar="N", help=years)
    add("--bootstrap", type=int, default=BOOTSTRAP_DRAWS, metavar="N", help="bootstrap draws (%(default)s)")
    add("--seed", type=int, default=SEED, help="seed of the bootstrap (%(default)s)")
    return flags


def work(flags: argparse.Namespace) -> int:
    """The exit code; measures, writes and prints.

    Raises:
        ValueError: a flag, the folder of slices or a model is bad.
        OSError: the disk is full or not writable.
    """
    check_draws("--draws", flags.draws)
    check_sampling(flags.bootstrap, flags.seed)
    finite = math.isfinite(flags.base_years) and flags.base_years > 0
    require(finite, "--base-years", flags.base_years, "above 0")
    split, out, method = read_split(flags.slices), as_path(flags.out), Likelihood(flags.likelihood)
    texts = [read_slice(flags.slices, entry) for entry in split.slices]
    _check_base(split.slices, flags.base_years)
    check_writable(out / SLOPES_FILE)
    sizes = [text_bytes(own) for own in texts]
    models = _scored_models(flags, texts, method, sum(int(own.sum()) for own in sizes))
    clusters = clusters_of(texts, max(longest for _, longest in models))
    scores = [model for model, _ in models]
    cells = Cells(
        bytes_GS=cluster_sums(sizes, clusters).astype(np.int64),
        years_S=np.array([entry.years for entry in split.slices]),
        later_S=np.array([not entry.held_out for entry in split.slices]),
        base_years=flags.base_years,
    )
    grouped = all(text.group for own in texts for text in own)
    nats = [cluster_sums([part.nats_D for part in one.slices], clusters) for one in scores]
    settings = settings_of(scores, nats)
    results = results_of(settings, cells, flags.bootstrap, flags.seed, grouped)
    write_atomic(out / LOSSES_FILE, losses_csv(scores, split.slices, cells.bytes_GS, nats, method))
    write_atomic(out / SLOPES_FILE, slopes_csv(results))
    write_atomic(out / FIGURE_FILE, rendered(plot_shift(results, settings, cells))["svg"])
    print(as_text(results, flags.base_years, method))
    return DONE


def _check_base(slices: Sequence[SliceEntry], base_years: float) -> None:
    held = [entry.years for entry in slices if entry.held_out]
    newest = max(held, default=-math.inf)
    bound = f"at least {-newest:.2f}, so that it includes the newest held-out slice"
    require(newest >= -base_years, "--base-years", base_years, bound)


def _scored_models(
    flags: argparse.Namespace, texts: Sequence[Sequence[Dated]], method: Likelihood, all_bytes: int
) -> list[tuple[Scored, float]]:
    """Each model's nats, and the mean bytes of its rows; the texts have `all_bytes` together."""
    found, names = [], list(dict.fromkeys(flags.models))
    for number, path in enumerate(names, start=1):
        begun, model = time.monotonic(), load(path)
        try:
            parts = score_slices(model, texts, method, flags.draws, as_path(flags.out) / SCORES_FOLDER)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        found.append((scored(path, model, parts), model.seq_len * all_bytes / sum(part.tokens for part in parts)))
        print(f"{number}/{len(names)} {path}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return found
