"""The adapter against logits: each request is scored by its task's estimator, whatever the batch and the order."""

import dataclasses
import io
import math

import numpy as np
import pytest
import sentencepiece
from chain_rule import chain_rule
from enumerated import log_softmax
from lm_eval.api.instance import Instance, OutputType
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from smdm_files import TRUNK, random_weights, write_both, write_random

from mdm_jax import load
from mdm_jax.evaluate.harness.adapter import HarnessModel
from mdm_jax.evaluate.harness.estimators import PRESETS, Estimator, Estimators
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, Family, Likelihood
from mdm_jax.trained.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW = 12
EOS = 256
CHAIN = Likelihood.LEFT_TO_RIGHT
TEXTS = [("a b", " cd"), ("", "ab"), ("a b", " e"), ("ab ", "c"), ("a context that is cut", "vwxyz"), ("a b", " cd")]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[Family, Model]:
    paths = write_both(tmp_path_factory.mktemp("models"), ROW)
    return {family: load(path) for family, path in paths.items()}


def asked(pairs, task="local", kind: OutputType = "loglikelihood"):
    return [Instance(kind, {}, pair, 0, (task, i, 1)) for i, pair in enumerate(pairs)]


def adapter(model: Model, **settings) -> HarnessModel:
    of_estimators = {field.name for field in dataclasses.fields(Estimators)} & settings.keys()
    chosen = Estimators(model.family, **{name: settings.pop(name) for name in of_estimators})
    return HarnessModel(model, chosen, **settings)


def answers(model: Model, pairs=TEXTS, task="local", **settings) -> list[tuple[float, bool]]:
    return adapter(model, **settings).loglikelihood(asked(pairs, task), disable_tqdm=True)


def nats(answers) -> np.ndarray:
    return np.array([found[0] for found in answers])


EXPECTED = [(b"a b", b" cd"), (b"", b"ab"), (b"a b", b" e"), (b"ab", b" c"), (b"a context that is cut", b"vwxyz")]


@pytest.mark.parametrize("family", Family)
def test_scores_are_the_chain_rule_over_whole_rows(models, family, caplog):
    model = models[family]
    harness = adapter(model, method=CHAIN)
    found = harness.loglikelihood(asked(TEXTS), disable_tqdm=True)
    expected = [chain_rule(model, *pair) for pair in EXPECTED]
    np.testing.assert_allclose(nats(found), [*expected, expected[0]], rtol=1e-5)
    assert {type(greedy) for _, greedy in found} == {bool}
    assert [record.getMessage() for record in caplog.records] == [
        "local: 1 of 6 contexts were cut on their left to fit rows of 12 tokens"
    ]
    assert harness.cut_contexts == {"local": 1}


@pytest.mark.parametrize(("settings", "at_a_time"), [({"draws": 16}, 1), ({"method": CHAIN}, 2)])
def test_neither_batches_nor_order_change_a_score(models, settings, at_a_time):
    model, order = models[Family.MDM], [3, 1, 5, 0, 4, 2]
    whole = nats(answers(model, **settings))
    mixed = nats(answers(model, [TEXTS[i] for i in order], pairs_at_a_time=at_a_time, **settings))
    np.testing.assert_allclose(mixed, whole[order], atol=1e-5)


def test_monte_carlo_scores_converge_to_the_any_order_value(models):
    model, pairs = models[Family.MDM], [("ab", "cdefghij"), ("", "abcdefgh")]
    exact = nats(answers(model, pairs, method=Likelihood.ANY_ORDER))
    for draws, most in ((64, 2.0), (248, 1.0)):  # 2^8 - 1 draws or more would give the exact value
        harness = adapter(model, draws=draws)
        found = nats(harness.loglikelihood(asked(pairs), disable_tqdm=True))
        errors = np.array([harness.scores["local", i, 0].se_mc for i in range(2)])
        assert (np.abs(found - exact) < 4 * errors).all()
        assert (errors > 0).all()
        assert (errors < most).all()


def test_each_task_has_its_own_estimator(models, monkeypatch):
    pair, model = ("ab", "cd"), models[Family.MDM]
    monkeypatch.setitem(PRESETS["smdm"], "guided", Estimator(CHAIN, 0.5))
    both = [*asked([pair], "guided"), *asked([pair], "other"), *asked([pair], "guided")]
    guided, other, again = adapter(model, preset="smdm").loglikelihood(both, disable_tqdm=True)
    assert guided == again
    assert guided[0] == pytest.approx(chain_rule(model, b"ab", b"cd", 0.5), rel=1e-5)
    assert other[0] == pytest.approx(answers(model, [pair], method=Likelihood.ANY_ORDER)[0][0], rel=1e-5)
    ids = [((*pair,), [*b"ab"], [*b"cd"])]
    assert adapter(model, preset="smdm")._loglikelihood_tokens(ids, disable_tqdm=True)[0][0] == pytest.approx(other[0])


@pytest.mark.parametrize("family", Family)
def test_a_text_is_scored_in_windows_that_follow_eos_or_the_last_token(models, family):
    model, text = models[family], b"a text of thirty-one bytes here"
    harness = adapter(model, method=CHAIN)
    found = harness.loglikelihood_rolling(asked([(text.decode(),), ("",)], kind="loglikelihood_rolling"), True)
    first, second, last = chain_rule(model, b"", text[:11]), text[10:22], text[19:31]
    expected = first + chain_rule(model, second[:1], second[1:]) + chain_rule(model, last[:3], last[3:])
    assert found == [pytest.approx(expected, rel=1e-5), 0.0]


def test_the_errors_of_windows_add_up(models):
    harness = adapter(models[Family.MDM], draws=16)
    texts = ["abcdefghijk" + "lmnopqrstuv", "abcdefghijk", "a" * 33]
    harness.loglikelihood_rolling(asked([(text,) for text in texts], kind="loglikelihood_rolling"), True)
    whole, first, equal = (harness.scores["local", i, 0].se_mc for i in range(3))
    second = adapter(models[Family.MDM], draws=16)
    second.loglikelihood(asked([("k", "lmnopqrstuv"), ("a", "a" * 11), ("", "a" * 11)]), disable_tqdm=True)
    follows, repeated, begins = (second.scores["local", i, 0].se_mc for i in range(3))
    assert whole == pytest.approx(math.hypot(first, follows))
    assert equal == pytest.approx(math.hypot(begins, 2 * repeated)), "two equal windows have the same draws"


def test_an_arm_without_a_start_token_begins_with_eos_once(tmp_path):
    model = load(write_random(tmp_path / "model", Attention.CAUSAL, ROW, has_start=False))
    found = answers(model, [("", "ab"), ("a", "b")])
    log_p_LV = log_softmax(model.logits(np.array([[EOS, *b"ab"]])))[0]
    assert found[0][0] == pytest.approx(log_p_LV[0, ord("a")] + log_p_LV[1, ord("b")], rel=1e-5)
    assert found[1][0] == pytest.approx(log_p_LV[1, ord("b")], rel=1e-5)


def test_a_cached_score_answers_only_for_its_model_method_draws_and_seed(models, tmp_path, monkeypatch):
    model, file = models[Family.MDM], str(tmp_path / "scores")
    first = answers(model, cache=file, draws=16)
    monkeypatch.setattr(Model, "loglikelihood", lambda *_, **__: pytest.fail("a score was computed again"))
    assert answers(model, cache=file, draws=16) == first
    others = [{"draws": 24}, {"draws": 16, "seed": 1}, {"draws": 16, "guidance": 0.5}, {"draws": 16, "method": CHAIN}]
    for settings in others:
        with pytest.raises(pytest.fail.Exception, match="computed again"):
            answers(model, cache=file, **settings)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        answers(models[Family.ARM], cache=file)


def test_an_evaluation_that_was_stopped_goes_on_from_its_cache(models, tmp_path, monkeypatch):
    model, file = models[Family.MDM], str(tmp_path / "scores")
    whole, compute, left = answers(model, draws=16), Model.loglikelihood, [2]

    def stopped(self, pairs, **settings):
        left[0] -= len(pairs)
        if left[0] < 0:
            raise KeyboardInterrupt
        return compute(self, pairs, **settings)

    monkeypatch.setattr(Model, "loglikelihood", stopped)
    with pytest.raises(KeyboardInterrupt):
        answers(model, cache=file, draws=16, pairs_at_a_time=1)
    left[0] = 3  # five different pairs, of which two were scored
    np.testing.assert_allclose(nats(answers(model, cache=file, draws=16, pairs_at_a_time=1)), nats(whole), atol=1e-5)


def test_an_answer_that_does_not_fit_is_found_before_anything_is_scored(models, monkeypatch):
    monkeypatch.setattr(Model, "loglikelihood", lambda *_, **__: pytest.fail("scored"))
    harness = adapter(models[Family.MDM])
    with pytest.raises(ValueError, match="tokens of the answer"):
        harness.loglikelihood([*asked([("a", "b")], "first"), *asked([("a", "b" * 13)], "second")], disable_tqdm=True)


def test_the_harness_makes_the_model_from_its_arguments(tmp_path):
    path = write_random(tmp_path / "model.x", Attention.BIDIRECTIONAL, ROW)
    made = get_model("mdm_jax").create_from_arg_string(
        f"path={path},preset=smdm,method=confidence,guidance=1,draws=1e3,seed=7", {"batch_size": 1, "device": "cuda"}
    )
    assert isinstance(made, HarnessModel)
    assert (made.world_size, made.rank, made.max_length, made.eot_token_id) == (1, 0, ROW, EOS)
    assert made.estimators == Estimators(Family.MDM, "smdm", Likelihood.CONFIDENCE, 1.0, 1000)
    assert (made.seed, made.name) == (7, str(path))
    assert made.tok_encode("aλ") == [97, 0xCE, 0xBB]


def test_no_token_spans_the_cut_and_no_blank_is_added_at_it(tmp_path):
    """Llama's kind of sentencepiece puts a blank before a text, and would merge the parts of a word."""
    trained = io.BytesIO()
    words = ["the cat sat on the mat", "a cat that sat", "sitting at the table"]
    settings = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "minloglevel": 2}
    sentences = iter(words * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=trained, vocab_size=300, **settings
    )
    (tmp_path / "tokenizer.model").write_bytes(trained.getvalue())
    spec = dataclasses.replace(TRUNK, vocab_size=300, attention=Attention.BIDIRECTIONAL)
    write_smdm(tmp_path / "model", random_weights(spec), spec, ROW, has_start=True)
    model = load(tmp_path / "model")
    harness, decode = adapter(model), model.tokenizer.decode
    cuts = [("the c", "at"), ("the cat", " sat"), ("the cat ", "sat"), ("the cat\n", "a"), ("s", "at")]
    for context, continuation in cuts:
        prompt, target = harness._encode_pair(context, continuation)
        assert decode(np.array(prompt + target)) == context + continuation
        assert decode(np.array(prompt)) == context.rstrip()
    whole = harness.tok_encode("the cat")
    prompt, target = harness._encode_pair("the c", "at")
    assert prompt + target != whole, "one token spans the cut in the whole text"
    assert harness._encode_pair("", "the cat") == ([model.tokenizer.eos_id], whole)


WRITING = [
    ("ab", {"until": ["\n"], "max_gen_toks": 5}),
    ("", {"until": "q", "max_gen_toks": 4}),
    ("a context that is cut", {"until": [], "do_sample": True, "temperature": 0.7, "top_k": 20}),
    ("ab", {"until": ["\n"], "max_gen_toks": 5}),
]


@pytest.mark.parametrize("family", Family)
def test_generated_answers_do_not_depend_on_their_order(models, family):
    harness, order = adapter(models[family], seed=3), [2, 0, 3, 1]
    found = harness.generate_until(asked(WRITING, kind="generate_until"), disable_tqdm=True)
    mixed = harness.generate_until(asked([WRITING[i] for i in order], kind="generate_until"), disable_tqdm=True)
    assert mixed == [found[i] for i in order]
    assert found[0] == found[3]


@pytest.mark.parametrize("family", Family)
def test_a_generated_answer_is_the_greedy_one_and_ends_at_its_stop(models, family):
    model = models[family]
    harness = adapter(model)
    whole = harness.generate_until(asked([("ab", {"max_gen_toks": 5})], kind="generate_until"), True)[0]
    method = Likelihood.CONFIDENCE if family is Family.MDM else Likelihood.LEFT_TO_RIGHT
    written = model.generate("ab", 5, temperature=0.0, **({"sampler": "confidence"} if family is Family.MDM else {}))
    assert whole == written[0].text
    assert model.loglikelihood([("ab", written[0].ids)], method, greedy=True)[0].is_greedy
    stop = whole[len(whole) // 2]
    cut = harness.generate_until(asked([("ab", {"max_gen_toks": 5, "until": [stop]})], kind="generate_until"), True)[0]
    assert cut == whole[: whole.index(stop)]


REFUSED = [
    (lambda m: answers(m, [("a", "b" * 13)]), "tokens of the answer 'b{13}' = 13: must be from 1 to 12, a row"),
    (lambda m: answers(m, [("a", "")]), "tokens of the answer '' = 0: must be from 1 to 12, a row"),
    (lambda m: adapter(m, sampler="gready"), "sampler = 'gready': must be one of ancestral"),
    (lambda m: adapter(m, steps=0), "steps = 0: must be from 1"),
    (lambda m: CachingLM(adapter(m), "never.db"), "use_cache: .* give the model the argument cache=PATH"),
    (lambda m: HarnessModel.create_from_arg_obj({"preset": "smdm"}), "model_args = .*: must be given with path="),
    (lambda m: HarnessModel.create_from_arg_obj({"path": "x", "drawz": 1}), "unknown key drawz: did you mean draws"),
    (lambda m: HarnessModel.create_from_arg_obj({"path": "x", "draws": "many"}), "draws = 'many': must be a whole"),
    (lambda m: HarnessModel.create_from_arg_obj({"path": "x", "seed": 1.5}), "seed = 1.5: must be a whole number"),
    (lambda m: HarnessModel.create_from_arg_obj({"path": "x", "seed": math.inf}), "seed = inf: must be a whole number"),
    (lambda m: HarnessModel.create_from_arg_obj({"path": "x", "guidance": "w"}), "guidance = 'w': must be a number"),
    (lambda m: adapter(m, seed=-1), "seed = -1: must be from 0"),
    (lambda m: adapter(m, rolling_context=12), "rolling_context = 12: must be from 0 to 11"),
    (
        lambda m: adapter(m, guidance=0.5).loglikelihood_rolling(asked([("a",)])),
        "guidance = 0.5: must be 0 for local: a perplexity needs a likelihood",
    ),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_cannot_be_answered_is_said(models, tmp_path, monkeypatch, call, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        call(models[Family.MDM])
