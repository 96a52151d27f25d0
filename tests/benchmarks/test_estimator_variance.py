"""The designs that the benchmark compares weigh every token alike, and its ratios have honest errors."""

import jax
import numpy as np
import pytest
from tiny_runs import on_mesh

from benchmarks.estimator_variance import DESIGNS, Design, contributions, drawn_masks, iid_counts, ratio

ROWS, LENGTH = 4096, 6


@pytest.mark.parametrize("name", [name for name in DESIGNS if "control" not in name])
def test_every_token_has_its_weight(name: str) -> None:
    """A token's nats have the mean weight 1/L."""
    design = DESIGNS[name]
    with on_mesh():
        mask_BL, weight_B = (np.asarray(x) for x in drawn_masks(design, jax.random.key(0), ROWS, LENGTH))
    assert mask_BL.shape == (ROWS * design.draws, LENGTH)
    weight_SL = (mask_BL * weight_B[:, None]).reshape(ROWS, design.draws, LENGTH).sum(1)
    error_L = weight_SL.std(0) / ROWS**0.5
    assert (np.abs(weight_SL.mean(0) - 1 / LENGTH) < 5 * error_L).all()


def test_variances_a_forward_pass_of_normal_estimates() -> None:
    rng = np.random.default_rng(0)
    estimate_PS = 3 + 2 * rng.standard_normal((400, 50))
    for design in (Design(iid_counts), Design(iid_counts, shares_levels=True)):
        assert contributions(estimate_PS, design).mean() == pytest.approx(4, rel=0.25)
    assert contributions(estimate_PS, Design(iid_counts, 16)).mean() == pytest.approx(64, rel=0.05)


def test_a_ratio_and_its_error() -> None:
    rng = np.random.default_rng(0)
    found = [ratio(6 * rng.chisquare(4, 100), rng.chisquare(4, 100)) for _ in range(60)]
    times, errors = np.array(found).T
    assert times.mean() == pytest.approx(6, rel=0.05)
    assert errors.mean() == pytest.approx(times.std(ddof=1), rel=0.3)
