"""`generate` and `infill` of a loaded model: seeds, lengths, EOS, holes, and what is refused."""

import numpy as np
import pytest
from smdm_files import write_both, write_random

from mdm_jax import load
from mdm_jax.spec import Attention, Family, Likelihood
from mdm_jax.trained.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW = 12


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[Family, Model]:
    paths = write_both(tmp_path_factory.mktemp("models"), ROW)
    return {family: load(path) for family, path in paths.items()}


@pytest.mark.parametrize("family", Family)
def test_a_text_depends_only_on_its_prompt_and_its_seed(models, family):
    model = models[family]
    together = model.generate(["ab", "", "abcdefg"], 4, n=2, seed=5)
    assert [text.seed for text in together] == [5, 6, 7, 8, 9, 10]
    assert [text.prompt for text in together] == ["ab", "ab", "", "", "abcdefg", "abcdefg"]
    assert len({text.ids for text in together}) == 6
    for text in together:
        alone = model.generate([text.prompt], 4, seed=text.seed)[0]
        assert (alone.ids, alone.text, alone.nfe) == (text.ids, text.text, text.nfe)
        assert alone.nats == pytest.approx(text.nats, rel=1e-4)
        assert 1 <= text.tokens <= 4
        assert text.text == model.tokenizer.decode(np.array(text.ids))


@pytest.mark.parametrize("family", Family)
def test_texts_and_ids_are_the_same_prompts(models, family):
    model = models[family]
    assert model.generate("ab", 3)[0].ids == model.generate([np.array([97, 98])], 3)[0].ids
    assert model.generate([[97, 98]], 3)[0].prompt == "ab"
    assert model.generate([]) == []


@pytest.mark.parametrize("family", Family)
def test_a_row_is_filled_by_default_and_an_eos_ends_the_text(models, family):
    texts = models[family].generate("abc", n=300, temperature=3.0)
    ended = [text for text in texts if text.ended]
    assert 0 < len(ended) < 300
    assert {text.tokens for text in texts if not text.ended} == {ROW - 3}
    assert all(256 not in text.ids and text.tokens == len(text.ids) + text.ended for text in texts)
    assert all(0 < text.nfe <= ROW - 3 for text in texts)


def test_an_arm_at_temperature_zero_is_its_greedy_answer_and_its_nats_are_its_likelihood(models):
    model = models[Family.ARM]
    text = model.generate("abc", 6, temperature=0.0)[0]
    score = model.loglikelihood([("abc", text.ids)], greedy=True)[0]
    assert score.is_greedy
    assert -score.loglikelihood == pytest.approx(text.nats, rel=1e-4)
    other = model.generate("abc", 6, seed=3)[0]
    assert -model.loglikelihood([("abc", other.ids)])[0].loglikelihood == pytest.approx(other.nats, rel=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_confidence_at_temperature_zero_is_the_greedy_answer_of_the_likelihood(models, guidance):
    """The sampler and the likelihood in the order of confidence reveal the same tokens, with guidance too."""
    model = models[Family.MDM]
    text = model.generate("abc", 6, sampler="confidence", temperature=0.0, guidance=guidance)[0]
    assert not text.ended
    score = model.loglikelihood([("abc", text.ids)], Likelihood.CONFIDENCE, greedy=True, guidance=guidance)[0]
    assert score.is_greedy
    assert -score.loglikelihood == pytest.approx(text.nats, rel=1e-4)
    assert text.nfe == 6 * (1 + (guidance > 0))


def test_holes_are_filled_and_the_rest_stays(models):
    model = models[Family.MDM]
    one, two = model.infill("a[MASK]b[MASK:3]c", n=2, seed=4)
    for found in (one, two):
        assert (found.ids[0], found.ids[2], found.ids[6], len(found.ids)) == (97, 98, 99, 7)
        assert (found.tokens, found.nfe, found.ended, found.prompt) == (4, 4, False, "a[MASK]b[MASK:3]c")
    assert one.ids != two.ids
    ids = np.array([97, 257, 98, 257, 257, 257, 99])
    assert model.infill([ids], seed=4)[0].ids == one.ids
    assert model.infill("[MASK:2]", seed=1)[0].ids == model.generate("", 2, seed=1)[0].ids


def test_fewer_steps_and_blocks_cost_what_they_should(models):
    model = models[Family.MDM]
    assert model.generate("", 8, steps=2, sampler="confidence", temperature=0.0)[0].nfe == 2
    assert model.generate("", 8, steps=4, block=4, sampler="confidence", temperature=0.0)[0].nfe == 4
    assert model.generate("", 8, sampler="threshold", bound=0.0)[0].nfe == 1


def test_a_cache_serves_continuations_and_holes(models):
    """Blocks of one token are exact."""
    model, one = models[Family.MDM], {"block": 1, "temperature": 0.0}
    for text in ("[MASK:6]", "a[MASK]b[MASK:3]cd"):
        found = model.infill(text, cache="dual", **one)[0]
        assert found.ids == model.infill(text, **one)[0].ids
        assert found.nfe == found.tokens
    assert model.generate("", 6, cache="dual", **one)[0].ids == model.infill("[MASK:6]", **one)[0].ids


REFUSED = [
    (
        lambda m: m.generate("a", 4, sampler="gready"),
        "sampler = 'gready': must be one of ancestral, first_hitting, c",
    ),
    (lambda m: m.generate("a", 4, steps=5), "row 0: steps = 5: must be at most 4, the tokens to generate"),
    (lambda m: m.generate("a", 4, steps=5, sampler="confidence"), "steps = 5: must be at most 4"),
    (lambda m: m.generate("a", 8, steps=2, block=2), "row 0: steps = 2: must be at least 4, one for each block"),
    (lambda m: m.generate("a", 4, steps=0), "steps = 0: must be from 1"),
    (lambda m: m.generate("a", 4, steps=2, sampler="threshold"), "steps = 2: must be absent for threshold"),
    (lambda m: m.generate("a", 4, bound=1.5, sampler="threshold"), "bound = 1.5: must be from 0 to 1: probability"),
    (lambda m: m.generate("a", 4, bound=0.5, sampler="margin"), "bound = 0.5: must be absent for margin"),
    (lambda m: m.generate("a" * 12), r"prompts\[0\]: tokens = 12: must be at most 11"),
    (lambda m: m.generate(["a", "a" * 9], 4), r"prompts\[1\]: tokens = 9: must be at most 8"),
    (lambda m: m.generate("a", 0), "tokens = 0: must be 1 or more"),
    (lambda m: m.generate([[257]], 2), r"prompts\[0\]: ids = '257 to 257': must be from 0 to 256"),
    (lambda m: m.generate("a", 4, temperature=-1.0), "temperature = -1.0"),
    (lambda m: m.generate("a", 4, temperature=float("nan")), "temperature = nan: must be finite"),
    (lambda m: m.generate("a", 4, top_p=0.0), "top_p = 0.0"),
    (lambda m: m.generate("a", 4, top_k=-1), "top_k = -1"),
    (lambda m: m.generate("a", 4, tempereture=1.0), "unknown key tempereture: did you mean temperature?"),
    (lambda m: m.generate("a", 4, n=0), "n = 0: must be 1 or more"),
    (lambda m: m.generate("a", 4, seed=-1), "seed = -1"),
    (lambda m: m.generate("a", 4, seed=2**32), "seed = 4294967296: must be from 0 to 4294967295"),
    (lambda m: m.generate("a", 4, cache="both", block=2), "cache = 'both': must be one of none, prefix, dual"),
    (lambda m: m.generate("a", 4, cache="dual"), "block = None: must be the tokens of a block: a cache keeps"),
    (lambda m: m.infill("no hole"), r"texts\[0\] = 'no hole': must be a text with \[MASK\]"),
    (lambda m: m.infill("a[MASK:12]"), r"texts\[0\]: tokens = 13: must be at most 12"),
    (lambda m: m.infill([[258]]), r"texts\[0\]: ids = '258 to 258': must be from 0 to 257"),
]
NOT_OF_AN_ARM = [
    (lambda m: m.infill("a[MASK]"), "infill: family = 'arm': must be mdm"),
    (lambda m: m.generate("a", 4, sampler="margin"), "sampler = 'margin': must be ancestral for an ARM"),
    (lambda m: m.generate("a", 4, steps=2), "steps = 2: must be absent for an ARM"),
    (lambda m: m.generate("a", 4, guidance=0.5), "guidance = 0.5: must be 0 for an ARM"),
    (lambda m: m.generate("a", 4, cache="dual"), "cache = 'dual': must be absent for an ARM, which always keeps"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_cannot_be_generated_is_said_in_a_line(models, call, said):
    with pytest.raises(ValueError, match=said) as error:
        call(models[Family.MDM])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("call", "said"), NOT_OF_AN_ARM)
def test_an_arm_refuses_what_only_an_mdm_has(models, call, said):
    with pytest.raises(ValueError, match=said):
        call(models[Family.ARM])


def test_an_arm_without_a_start_token_begins_with_eos(tmp_path):
    model = load(write_random(tmp_path / "bare", Attention.CAUSAL, ROW, has_start=False))
    text = model.generate("", 5)[0]
    assert -model.loglikelihood([("", text.ids)])[0].loglikelihood == pytest.approx(text.nats, rel=1e-4)
