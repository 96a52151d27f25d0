"""Texts longer than a row, against rows that are generated one by one."""

import numpy as np
import pytest
from smdm_files import write_both

from mdm_jax import load
from mdm_jax.spec import Family
from mdm_jax.trained.model import Model
from mdm_jax.trained.sliding import Slide

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW, STRIDE = 10, 4
GREEDY = {Family.MDM: {"sampler": "confidence", "temperature": 0.0}, Family.ARM: {"temperature": 0.0}}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[Family, Model]:
    paths = write_both(tmp_path_factory.mktemp("models"), ROW)
    return {family: load(path) for family, path in paths.items()}


ROUNDS = [
    ((0, 10), [10]),
    ((3, 7), [7]),
    ((8, 2), [2]),
    ((0, 11), [10, 1]),
    ((0, 21), [10, 4, 4, 3]),
    ((5, 12), [5, 4, 3]),
    ((7, 5), [4, 1]),
    ((40, 9), [4, 4, 1]),
]


@pytest.mark.parametrize(("sizes", "expected"), ROUNDS)
def test_the_first_row_is_filled_and_the_next_ones_have_a_stride(sizes, expected):
    assert Slide(ROW, STRIDE, 257, None, None).new_tokens(*sizes) == expected


@pytest.mark.parametrize("family", Family)
def test_a_long_text_is_its_rows_one_by_one(models, family):
    """A row at temperature 0 follows from its prefix: the last tokens of the text, as many as leave room."""
    model, options = models[family], GREEDY[family]
    prompt, tokens = "abcdefghijklmn", 11
    found = model.generate(prompt, tokens, stride=STRIDE, **options)[0]
    ids, nats, nfe = list(prompt.encode()), 0.0, 0
    for new in (4, 4, 3):
        part = model.generate([ids[-(ROW - new) :]], new, **options)[0]
        assert not part.ended
        ids, nats, nfe = [*ids, *part.ids], nats + part.nats, nfe + part.nfe
    assert found.ids == tuple(ids[len(prompt) :])
    assert (found.prompt, found.tokens, found.nfe, found.ended, found.batch) == (prompt, tokens, nfe, False, 1)
    assert found.nats == pytest.approx(nats, rel=1e-4)
    assert found.seconds > 0
    unread = model.generate("zzzz" + prompt[4:], tokens, stride=STRIDE, **options)[0]
    assert unread.ids == found.ids


@pytest.mark.parametrize("family", Family)
def test_a_long_text_depends_only_on_its_prompt_and_its_seed(models, family):
    model, options = models[family], {"stride": STRIDE, "temperature": 2.0}
    together = model.generate(["ab", "", "abcdefghi"], 17, n=2, seed=5, **options)
    assert len({text.ids for text in together}) == 6
    for text in together[1::2]:
        alone = model.generate(text.prompt, 17, seed=text.seed, **options)[0]
        assert (alone.ids, alone.tokens, alone.nfe, alone.ended) == (text.ids, text.tokens, text.nfe, text.ended)
        assert alone.nats == pytest.approx(text.nats, rel=1e-4)


@pytest.mark.parametrize("family", Family)
def test_a_text_that_fits_in_a_row_is_the_same_with_a_stride(models, family):
    model = models[family]
    for prompt, tokens in (("ab", 8), ("abcdefgh", 2)):
        found, plain = model.generate(prompt, tokens, stride=STRIDE)[0], model.generate(prompt, tokens)[0]
        assert (found.ids, found.nats, found.nfe) == (plain.ids, plain.nats, plain.nfe)


@pytest.mark.parametrize("family", Family)
def test_an_eos_ends_a_long_text(models, family):
    texts = models[family].generate("abc", 30, n=100, stride=STRIDE, temperature=4.0)
    ended = [text for text in texts if text.ended]
    assert {text.tokens > ROW for text in ended} == {True, False}
    assert {text.tokens for text in texts if not text.ended} == {30}
    assert all(256 not in text.ids and text.tokens == len(text.ids) + text.ended for text in texts)


def test_rows_of_a_text_have_other_random_numbers(models):
    """A temperature this high draws tokens that hardly depend on the model."""
    texts = models[Family.ARM].generate("", 30, n=8, stride=5, temperature=1e6)
    whole = [np.array(text.ids) for text in texts if not text.ended]
    assert len(whole) > 2
    for ids in whole:
        assert not (ids[10:15] == ids[15:20]).all()
        assert not (ids[:5] == ids[10:15]).all()


def test_steps_are_shared_among_the_rows(models):
    model, tokens = models[Family.MDM], 18
    options = {"sampler": "confidence", "temperature": 0.0, "stride": STRIDE}
    assert model.generate("", tokens, steps=9, **options)[0].nfe == 9
    assert model.generate("", tokens, steps=9, block=2, cache="dual", **options)[0].nfe == 9


REFUSED = [
    (lambda m: m.generate("a", 11), "tokens = 11: must be at most 10, the model's row; a stride (--stride) writes"),
    (lambda m: m.generate("abc", 8), "prompts[0]: tokens = 3: must be at most 2: a row of the model has 10"),
    (lambda m: m.generate("a" * 11), "of which a new token take a part; a stride (--stride) takes longer ones"),
    (lambda m: m.generate("a", 20, stride=0), "stride = 0: must be from 1 to 9"),
    (lambda m: m.generate("a", 20, stride=10), "stride = 10: must be from 1 to 9"),
    (lambda m: m.generate("a", stride=2), "tokens = None: must be given with a stride"),
    (lambda m: m.generate("a", 1 << 30, stride=2), "tokens = 1073741824: must be given with a stride, at most 1048576"),
    (
        lambda m: m.generate("", 12, steps=3, stride=4),
        "row 0: steps = 3: must be at least 6, so that each of the text's",
    ),
    (lambda m: m.generate("", 12, steps=13, stride=4), "row 0: steps = 13: must be at most 12"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_cannot_be_written_is_said_in_a_line(models, call, said):
    with pytest.raises(ValueError) as error:
        call(models[Family.MDM])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
