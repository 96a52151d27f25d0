"""Log-likelihoods of pairs and texts, and padded logits, of models in files: few programs, and errors of one line."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from smdm_files import write_random

from mdm_jax import load
from mdm_jax.evaluate.likelihood.confidence import reveal
from mdm_jax.evaluate.likelihood.left_to_right import causal_nats, next_token_nats
from mdm_jax.evaluate.likelihood.masked import masked_nats
from mdm_jax.evaluate.likelihood.start_token import with_start
from mdm_jax.evaluate.logits import _read
from mdm_jax.evaluate.texts import text_loss
from mdm_jax.spec import Attention, Likelihood
from mdm_jax.trained.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def mdm(tmp_path_factory) -> Model:
    return load(write_random(tmp_path_factory.mktemp("mdm") / "model", Attention.BIDIRECTIONAL, seq_len=200))


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Model:
    return load(write_random(tmp_path_factory.mktemp("arm") / "model", Attention.CAUSAL, seq_len=200))


def programs(function: Any) -> int:
    """The compiled programs of a jitted function."""
    return function._cache_size()


def mixed_pairs(count=64):
    random = np.random.default_rng(0)
    sizes = np.stack([random.integers(0, 195, count), random.integers(1, 5, count)], 1)
    return [(random.integers(0, 257, prompt), random.integers(0, 257, target)) for prompt, target in sizes]


METHODS = [
    (Likelihood.NELBO, masked_nats),
    ("arm", causal_nats),
    pytest.param(Likelihood.LEFT_TO_RIGHT, next_token_nats, marks=pytest.mark.slow),
    pytest.param(Likelihood.CONFIDENCE, reveal, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("method", "program"), METHODS)
def test_sixty_four_requests_compile_at_most_six_programs(mdm, arm, method, program):
    before = programs(program)
    found = arm.loglikelihood(mixed_pairs()) if method == "arm" else mdm.loglikelihood(mixed_pairs(), method, draws=8)
    assert len(found) == 64
    assert 4 <= programs(program) - before <= 6


def test_texts_and_their_ids_have_one_score(mdm):
    by_text = mdm.loglikelihood([("héllo", " world"), ("", "a")], "confidence", greedy=True)
    encode = mdm.tokenizer.encode
    by_ids = mdm.loglikelihood([(encode("héllo"), encode(" world")), ([], encode("a"))], "confidence", greedy=True)
    assert by_text == by_ids
    assert [one.tokens for one in by_text] == [6, 1]
    assert mdm.loglikelihood([]) == []


def test_the_loss_of_texts_is_that_of_their_rows_as_targets(tmp_path):
    """Three rows of three tokens, the last one shorter: EOS stands after each text."""
    model = load(write_random(tmp_path / "model", Attention.BIDIRECTIONAL, seq_len=3))
    texts = ["ab", "cde"]
    ids, _ = model.tokenizer.encode_batch(texts)
    pairs = [([], ids[i : i + 3]) for i in range(0, len(ids), 3)]
    found = model.text_loss(texts, "confidence")
    expected = -sum(one.loglikelihood for one in model.loglikelihood(pairs, "confidence"))
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert (found.se_mc, found.tokens, found.text_bytes) == (0.0, 7, 5)
    assert found.bits_per_byte == pytest.approx(expected / math.log(2) / 5, rel=1e-5)
    assert model.text_loss(texts[:1], draws=8) == model.nelbo(texts[:1], 8)


def test_the_loss_of_texts_under_an_arm_is_its_nelbo(arm):
    exact, same = arm.text_loss(["ab", "cde"], "left_to_right"), arm.nelbo(["ab", "cde"])
    assert exact.nats == pytest.approx(same.nats, rel=1e-6)
    assert dataclasses.replace(exact, nats=same.nats) == same


@pytest.mark.parametrize("family", ["mdm", "arm"])
def test_padding_changes_no_logits_and_shapes_share_programs(family, request):
    model = request.getfixturevalue(family)
    tokens_BL = np.random.default_rng(0).integers(0, 258, (7, 24))
    whole_BLV, before = model.logits(tokens_BL), programs(_read)
    assert whole_BLV.shape == (7, 24, 257)
    for rows in (5, 6, 8):
        some_BL = np.resize(tokens_BL, (rows, 24))
        np.testing.assert_allclose(model.logits(some_BL)[:5], whole_BLV[:5], atol=1e-5)
    np.testing.assert_allclose(model.logits(tokens_BL[3:4])[0], whole_BLV[3], atol=1e-5)
    assert programs(_read) == before + 1
    assert model.logits(np.zeros((1, 201), int)).shape == (1, 201, 257)


BAD = [
    (lambda m, a: m.loglikelihood([("a", "b")], "elbo"), "method = 'elbo': must be one of nelbo, left_to_right, conf"),
    (lambda m, a: a.loglikelihood([("a", "b")], "any_order"), "method = 'any_order': must be one of nelbo, left_to"),
    (lambda m, a: a.loglikelihood([("a", "b")], guidance=0.5), "guidance = 0.5: must be 0 for an ARM"),
    (lambda m, a: m.loglikelihood([("a", "b")], guidance=math.nan), "guidance = nan: must be a number"),
    (lambda m, a: m.loglikelihood([("a", "b")], draws=1), "draws = 1: must be from 2"),
    (lambda m, a: m.loglikelihood([("a", "b")], max_se=-1.0), "max_se = -1.0"),
    (lambda m, a: m.loglikelihood([("a", "b")], seed=-1), "seed = -1"),
    (lambda m, a: m.row_nats(np.array([1, 300])), "tokens: ids = '1 to 300': must be from 0 to 256"),
    (lambda m, a: a.text_loss(["a"], "confidence"), "method = 'confidence': must be one of left_to_right, nelbo, for"),
    (lambda m, a: m.loglikelihood([("a", "b"), ("a", "")]), r"pairs\[1\]: target = ''"),
    (lambda m, a: m.loglikelihood([("a" * 200, "b")]), r"pairs\[0\]: tokens of prompt and target = 201: must be at m"),
    (lambda m, a: m.loglikelihood([("", "b" * 13)], "any_order"), r"13 tokens take 8191 forward passes"),
    (
        lambda m, a: m.text_loss(["a"], "any_order"),
        "method = 'any_order': must be one of nelbo, left_to_right, confidence, for rows",
    ),
    (lambda m, a: m.text_loss([""], "confidence"), "texts"),
]


def test_one_text_in_place_of_a_list_is_refused(mdm):
    """It would be scored as one text for each of its characters."""
    with pytest.raises(ValueError, match="texts: type = 'no list': must be str, in a list or tuple"):
        text_loss(mdm._params, mdm.spec, mdm.tokenizer, "abc", mdm.seq_len, 4, mdm._mesh)


def test_weights_with_nan_give_no_loss_of_texts(arm):
    spoilt = copy.copy(arm)
    vars(spoilt).pop("params", None)
    spoilt._params = with_start(arm._params, 257, 0)  # a copy of the table of embeddings
    spoilt._params.embed[...] = spoilt._params.embed[...] * np.nan
    for method in (Likelihood.NELBO, Likelihood.LEFT_TO_RIGHT):
        with pytest.raises(ValueError, match="nats = nan: must be finite: the weights have NaN") as raised:
            spoilt.text_loss(["ab", "cde"], method)
        assert "\n" not in str(raised.value)
    assert np.isfinite(arm.nelbo(["ab", "cde"]).nats)


@pytest.mark.parametrize(("call", "said"), BAD)
def test_a_bad_argument_is_named_in_one_line(mdm, arm, call, said):
    with pytest.raises(ValueError, match=said) as raised:
        call(mdm, arm)
    assert "\n" not in str(raised.value)
