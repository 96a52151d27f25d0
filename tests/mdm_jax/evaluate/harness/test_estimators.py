"""Which estimator a task has: the preset, what replaces it, and what an ARM cannot have."""

import pytest

from mdm_jax.evaluate.harness.estimators import Estimator, Estimators
from mdm_jax.spec import Family, Likelihood

CHAIN, NELBO = Likelihood.LEFT_TO_RIGHT, Likelihood.NELBO
PAPER = {
    "lambada_openai": (CHAIN, 1.1),
    "openbookqa": (CHAIN, 1.6),
    "boolq": (CHAIN, 1.6),
    "piqa": (CHAIN, 0.6),
    "arc_easy": (NELBO, 0.6),
    "social_iqa": (NELBO, 0.6),
    "race": (NELBO, 0.7),
    "hellaswag": (NELBO, 0.7),
}


def test_the_preset_has_the_papers_eight_tasks():
    chosen = Estimators(Family.MDM, "smdm")
    assert {task: (chosen.of(task).method, chosen.of(task).guidance) for task in PAPER} == PAPER
    assert chosen.of("race").draws == 1024
    assert chosen.of("another") == Estimator() == Estimators(Family.MDM).of("race")


def test_what_is_given_replaces_the_preset_for_all_tasks():
    chosen = Estimators(Family.MDM, "smdm", guidance=0.0, draws=16, max_se=0.1)
    assert chosen.of("race") == chosen.of("another") == Estimator(NELBO, 0.0, 16, 0.1)
    assert chosen.of("piqa") == Estimator(CHAIN, 0.0, 16, 0.1)
    assert Estimators(Family.MDM, "smdm", Likelihood.CONFIDENCE).of("race").method is Likelihood.CONFIDENCE


def test_an_arm_has_its_likelihood_under_each_preset():
    chosen = Estimators(Family.ARM, "smdm")
    assert {(chosen.of(task).method, chosen.of(task).guidance) for task in (*PAPER, None)} == {(CHAIN, 0.0)}
    assert Estimators(Family.ARM, method=NELBO).of("race").method is CHAIN


BAD = [
    (lambda: Estimators(Family.MDM, "llada"), "preset = 'llada': must be one of smdm"),
    (lambda: Estimators(Family.ARM, guidance=0.5), "guidance = 0.5: must be 0 for an ARM"),
    (lambda: Estimators(Family.ARM, method=Likelihood.CONFIDENCE), "method = 'confidence': must be left_to_right"),
    (lambda: Estimators(Family.MDM, method="elbo"), "method = 'elbo': must be one of nelbo"),
    (lambda: Estimators(Family.MDM, "smdm").of_text("race"), "guidance = 0.7: must be 0 for race: a perplexity needs"),
    (lambda: Estimators(Family.MDM, guidance=float("nan")), "guidance = nan: must be finite"),
    (lambda: Estimators(Family.MDM, draws=1), "draws = 1: must be from 2"),
    (lambda: Estimators(Family.ARM, draws=1), "draws = 1: must be from 2"),
    (lambda: Estimators(Family.MDM, max_se=-1.0), "max_se = -1.0: must be 0, or a standard error"),
]


@pytest.mark.parametrize(("make", "said"), BAD)
def test_a_bad_setting_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
