"""The settings of fine-tuning: what they hash, and the combinations that are refused."""

import dataclasses
from typing import Any

import pytest

from mdm_jax.config import default_run, override, to_spec
from mdm_jax.spec import (
    CorpusSource,
    CorpusSpec,
    DataSpec,
    Family,
    ObjectiveSpec,
    RowKind,
    RunSpec,
    StartSpec,
    from_json,
    pair,
    to_json,
)

PAIRS = DataSpec(CorpusSpec(CorpusSource.PAIRS, "pairs.jsonl"))
RUN = RunSpec(data=PAIRS)
FINGERPRINT = "ab" * 32


def test_kinds_of_rows():
    assert RunSpec().data.rows is RowKind.TEXT
    assert PAIRS.rows is RowKind.RESPONSES
    assert dataclasses.replace(PAIRS, score_prompt=True).rows is RowKind.WHOLE_PAIRS


@pytest.mark.parametrize(
    "change",
    [
        {"data": dataclasses.replace(PAIRS, score_prompt=True)},
        {"data": dataclasses.replace(PAIRS, eos_to_end=True)},
        {"objective": ObjectiveSpec(drop_prompt=0.1)},
        {"start": StartSpec("model.safetensors", FINGERPRINT)},
    ],
)
def test_what_changes_the_result_changes_the_run_id(change):
    changed = dataclasses.replace(RUN, **change)
    assert changed.run_id != RUN.run_id
    assert from_json(to_json(changed)) == changed


def test_the_path_of_the_weights_is_not_hashed():
    """The weights are; and a run without them has the run_id that it had before there were such runs."""
    runs = [dataclasses.replace(RUN, start=StartSpec(path, FINGERPRINT)) for path in ("a", "b")]
    assert runs[0].run_id == runs[1].run_id
    assert RunSpec(start=StartSpec()).run_id == "mdm-2x64-" + RunSpec().spec_hash[:12]


def test_the_label_names_the_share_of_dropped_prompts():
    assert ObjectiveSpec(drop_prompt=0.25).label == "count:drop_prompt0.25"


BAD = [
    (["objective.drop_prompt=0.1"], "objective.drop_prompt = 0.1: must be 0 unless the rows are pairs"),
    (["data.score_prompt=true"], "data.score_prompt = True: must be false unless data.corpus.source is pairs"),
    (["start.fingerprint=abc"], "start.fingerprint = 'abc': must be 64 hex digits"),
    ([f"start.fingerprint={FINGERPRINT}"], "start.path = '': must be given with start.fingerprint"),
]
BAD_PAIRS: list[tuple[list[str], str]] = [
    (["objective.drop_prompt=0.1", "data.score_prompt=true"], "objective.drop_prompt = 0.1: must be 0 unless"),
    (["objective.drop_prompt=1.0"], "objective.drop_prompt = 1.0: must be at least 0 and below 1"),
    (["objective.stochastic_length=0.1"], "objective.stochastic_length = 0.1: must be 0 for pairs"),
    (["objective.weighting=bell"], "objective.weighting = 'bell': must be elbo for the variant count with pairs"),
    (["evaluation.estimator=control_variate"], "evaluation.estimator = 'control_variate': must be counts"),
    (['evaluation.likelihoods=["confidence"]'], "must be none for pairs: Model.loglikelihood has them"),
    (["objective.variant=continuous", "model.time_conditioning=true"], "model.time_conditioning = True: must be false"),
]


@pytest.mark.parametrize(("settings", "said"), BAD)
def test_a_setting_that_needs_pairs_is_refused_without_them(settings, said):
    with pytest.raises(ValueError) as error:
        to_spec(RunSpec, override(default_run(), settings))
    assert said in str(error.value)


@pytest.mark.parametrize(("settings", "said"), BAD_PAIRS)
def test_a_setting_that_pairs_do_not_have_is_refused(settings, said):
    pairs: Any = override(default_run(), ["data.corpus.source=pairs", "data.corpus.path=pairs.jsonl"])
    with pytest.raises(ValueError) as error:
        to_spec(RunSpec, override(pairs, settings))
    assert said in str(error.value)


def test_the_arm_cannot_drop_prompts():
    with pytest.raises(ValueError, match=r"objective\.drop_prompt = 0\.1.*the ARM: it has no MASK"):
        dataclasses.replace(pair(RUN, Family.ARM).objective, drop_prompt=0.1)
