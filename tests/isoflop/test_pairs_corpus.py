"""A plan on pairs: a pair counts as a row, whatever its length."""

import dataclasses

import pytest
from pair_corpus import prepared_pairs

from isoflop.corpus import check_corpora
from mdm_jax.data.manifest import read_manifest
from mdm_jax.spec import EvaluationSpec, RunSpec


def test_a_pair_counts_as_a_row_in_the_checks_of_a_plan(tmp_path):
    data = prepared_pairs(tmp_path)
    held = read_manifest(data.directory).validation.documents
    run = RunSpec(data=data, evaluation=EvaluationSpec(eval_tokens=16 * held, batch=2))
    check_corpora([run], prepared=True)
    more = dataclasses.replace(run, evaluation=EvaluationSpec(eval_tokens=16 * (held + 1), batch=2))
    with pytest.raises(ValueError, match=f"eval_tokens = {16 * (held + 1)}: must be at most {16 * held}, the tokens"):
        check_corpora([more], prepared=True)
