"""Rows of a table that contradict themselves, where the row says by its `spec_hash` that this project wrote it.

A table carries no seal, because it is made to be edited by hand. But some of its columns follow from others, and a row
in which they do not was damaged, or edited in one place and not in the other. Other people's tables have other models
and other units, so nothing is asked of them here.
"""

import numpy as np
import pandas as pd

from mdm_jax.spec import ModelSpec
from mdm_jax.spec.counting import count_parameters

SELF_CONTRADICTION = "the row contradicts itself"
REMEDY = "correct the columns that are named, or take the row from runs/<run_id>/result.json again"
HEX_DIGITS = 64
ROUNDING = 1e-6
"""Largest relative difference that a spreadsheet's rounding explains."""
SHORT_ROWS, MASK_COLUMN, TIMED = "short", "no_zero_masking", "timed"
"""Settings of a training loss, in `objective_variant`, that change the tokens of a row or the weights of the model."""
SHAPE = ("n_layers", "d_model", "n_heads", "ffn", "vocab_size")


def contradictions_within(full: pd.DataFrame) -> list[str]:
    """The reason to leave each row out, empty where its columns agree; unknown columns are not asked."""
    ours = [len(str(digest)) == HEX_DIGITS for digest in full["spec_hash"]]
    labels = [str(label) for label in full["objective_variant"]]
    shapes = full[list(SHAPE)].to_numpy(np.float64)
    models = [(shape.tobytes(), label) for shape, label in zip(shapes, labels, strict=True)]
    different = dict(zip(models, zip(shapes, labels, strict=True), strict=True))
    counted = {model: _counted(*row) for model, row in different.items()}
    counts = np.array([counted[model] for model in models]).reshape(len(full), 2)
    with np.errstate(all="ignore"):  # zeros and overflows of a row that other checks leave out
        implied = _implied(full, counts)
        implied["tokens"][[SHORT_ROWS in label for label in labels]] = np.nan  # rows are shorter than seq_len there
        wrong = {name: np.abs(_product(full, name) / value - 1) > ROUNDING for name, value in implied.items()}
    named = (", ".join(name for name in implied if wrong[name][i]) for i in range(len(full)))
    return [f"{SELF_CONTRADICTION}: {names}" if own and names else "" for own, names in zip(ours, named, strict=True)]


def _implied(full: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
    """These columns as they follow from a row's other columns, [n] each; `counts`: parameters by shape, [n, 2]."""
    return {
        "params": counts[:, 0],
        "params_non_embedding": counts[:, 1],
        "tokens": _product(full, "steps", "batch_size", "seq_len"),
        "flops_6nd": 6 * _product(full, "params_non_embedding", "tokens"),
        "epochs": _product(full, "tokens") / _product(full, "unique_tokens"),
    }


def _product(full: pd.DataFrame, *names: str) -> np.ndarray:
    return np.prod([np.asarray(full[name], np.float64) for name in names], axis=0)


def _counted(shape: np.ndarray, label: str) -> tuple[float, float]:
    """Parameters of such a model, all of them and those without embedding and head; nan where the shape is unknown."""
    if not np.isfinite(shape).all():
        return np.nan, np.nan
    try:
        layers, width, heads, ffn, vocabulary = (int(value) for value in shape)
        masks, timed = MASK_COLUMN in label, TIMED in label
        model = ModelSpec(layers, width, heads, ffn, vocabulary, mask_column=masks, time_conditioning=timed)
        count = count_parameters(model)
    except ValueError:
        return np.nan, np.nan
    return float(count.total), float(count.non_embedding)
