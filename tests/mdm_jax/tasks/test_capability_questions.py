"""The questions: readers of the prompts answer them all, models that ignore the prompts answer exactly one of m."""

import numpy as np
import pytest
from json_tokenizers import word_piece
from small_corpus import texts

from mdm_jax.data.tokenizer import ByteTokenizer, SentencePieceTokenizer, train_sentencepiece
from mdm_jax.data.tokenizer_json import JsonTokenizer
from mdm_jax.tasks.capability.makers import ANSWERS, CUE, MAPS, conditions
from mdm_jax.tasks.capability.passages import Passages
from mdm_jax.tasks.capability.questions import Task, answers, digest, right_answers

DOCUMENTS = texts(200)


def passages_of(tokenizer):
    return Passages(tokenizer.encode_batch(DOCUMENTS)[0], tokenizer.eos_id, "the text")


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer()


@pytest.fixture(scope="module")
def asked(tokenizer):
    return conditions(passages_of(tokenizer), tokenizer, 96, 12, seed=3)


def find(whole: np.ndarray, part: np.ndarray) -> int:
    """The first position at which a part begins, or -1."""
    same = (np.lib.stride_tricks.sliding_window_view(whole, len(part)) == part).all(-1)
    return int(same.argmax()) if same.any() else -1


def after_cue(prompt: np.ndarray, cue: int, tokens: int) -> np.ndarray:
    """What followed the prompt's last tokens where they stood before."""
    place = find(prompt, prompt[len(prompt) - cue :]) + cue
    return prompt[place : place + tokens]


def map_of(text: str) -> str:
    """The image of the last word under the map that fits the examples."""
    *shown, asked = text.split("\n")
    pairs = [example.split(":") for example in shown]
    (right,) = (image for image in MAPS if all(image(word) == found for word, found in pairs))
    return right(asked.rstrip(":"))


def reader(task: Task, tokenizer, stream: np.ndarray):
    """Log-likelihoods of one who reads the prompt."""

    def answer(prompt: np.ndarray, tokens: int) -> np.ndarray:
        if task is Task.COPY:
            return after_cue(prompt, CUE, tokens)
        if task is Task.RECALL:
            return after_cue(prompt, 2, tokens)
        if task is Task.NEEDLE:
            return after_cue(prompt, 5, tokens)
        if task is Task.FEW_SHOT:
            return tokenizer.encode(map_of(tokenizer.decode(prompt)))
        place = find(stream, prompt) + len(prompt)
        return stream[place : place + tokens]

    return lambda pairs: [float(np.array_equal(answer(prompt, len(target)), target)) for prompt, target in pairs]


def test_who_reads_the_prompts_is_always_right(asked, tokenizer):
    stream = passages_of(tokenizer).ids
    for one in asked:
        if (one.task is Task.FEW_SHOT and one.size == 0) or (one.task is Task.CONTINUATION and one.size < 16):
            continue  # no one can know
        found = answers([one], reader(one.task, tokenizer, stream))[0]
        np.testing.assert_array_equal(found.right_G * one.chance, 1.0, err_msg=f"{one.task} {one.size}")
        np.testing.assert_array_equal(found.corrected_G * one.chance, 1.0)


def test_who_ignores_the_prompts_is_right_once_in_each_group_whatever_he_prefers(asked):
    random = np.random.default_rng(0)
    taste: dict[bytes, float] = {}

    def prior(pairs):
        return [taste.setdefault(target.tobytes(), float(random.normal())) for _, target in pairs]

    for one, found in zip(asked, answers(asked, prior), strict=True):
        np.testing.assert_allclose(found.right_G, 1.0, rtol=1e-12, err_msg=f"{one.task} {one.size}")
        np.testing.assert_allclose(found.corrected_G, 1.0, rtol=1e-12)


def test_zero_examples_say_nothing(asked):
    """The four maps have one prompt, so any model is right on one of four."""
    (one,) = (one for one in asked if (one.task, one.size) == (Task.FEW_SHOT, 0))
    for group in one.groups:
        assert len({prompt.tobytes() for prompt in group.prompts}) == 1
    calls = []
    answers([one], lambda pairs: calls.append(len(pairs)) or np.random.default_rng(0).normal(size=len(pairs)).tolist())
    assert calls == [len(one.groups) * ANSWERS], "equal pairs are asked once"


def test_a_preference_for_a_target_is_corrected():
    """Each prompt raises its own target by one nat, and the second target is 9 nats likelier after any prompt."""
    score_mm = np.eye(3) + np.array([0.0, 9.0, 0.0])
    assert right_answers(score_mm) == 1.0
    assert right_answers(score_mm - score_mm.mean(0)) == 3.0


def test_ties_share_the_credit():
    assert right_answers(np.zeros((4, 4))) == 1.0
    assert right_answers(np.array([[1.0, 1.0], [0.0, 0.0]])) == 1.0
    assert right_answers(np.array([[1.0, 0.0], [2.0, 0.0]])) == 1.0
    assert right_answers(np.eye(3) * 1e-7) == pytest.approx(1.0), "float32 does not tell these apart"


def test_questions_fit_the_row_and_depend_on_the_seed_alone(asked, tokenizer):
    passages = passages_of(tokenizer)
    assert digest(conditions(passages, tokenizer, 96, 12, seed=3)) == digest(asked)
    assert digest(conditions(passages, tokenizer, 96, 12, seed=4)) != digest(asked)
    assert {one.task for one in asked} == set(Task)
    for one in asked:
        assert all(len(group.prompts) * one.chance == 1 for group in one.groups)
        assert all(group.length <= 96 for group in one.groups)
    assert [one.size for one in asked if one.task is Task.COPY] == [4, 16, 64]
    longer = conditions(passages, tokenizer, 192, 12, seed=3)
    assert digest([one for one in longer if any((one.task, one.size) == (o.task, o.size) for o in asked)]) == digest(
        asked
    ), "a longer row adds sizes, and changes no question"


def test_the_size_is_the_distance(asked):
    for one in asked:
        if one.task is Task.COPY:
            assert {len(prompt) for group in one.groups for prompt in group.prompts} == {8 + one.size + CUE}
        if one.task is Task.CONTINUATION:
            assert {len(prompt) for group in one.groups for prompt in group.prompts} == {one.size}


def test_passages_stay_inside_documents():
    ids = np.array([1, 2, 9, 3, 4, 5, 9, 6, 7])
    passages = Passages(ids, 9, "the text")
    assert (passages.has(3, 1), passages.has(3, 2), passages.has(4, 1)) == (True, False, False)
    found = {tuple(one) for seed in range(20) for one in passages.draw(np.random.default_rng(seed), 2, 2)}
    assert found == {(1, 2), (3, 4), (4, 5), (6, 7)}


OTHERS = {
    "sentencepiece": lambda: SentencePieceTokenizer(train_sentencepiece(DOCUMENTS, 300)),
    "ignores case": lambda: JsonTokenizer(word_piece(DOCUMENTS, 120).encode()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tokenizers(name):
    other = OTHERS[name]()
    asked = conditions(passages_of(other), other, 128, 4, seed=0)
    tasks = {one.task for one in asked}
    assert tasks >= {Task.COPY, Task.RECALL, Task.NEEDLE, Task.CONTINUATION}
    for one in asked:
        assert all(group.is_fair and group.length <= 128 for group in one.groups)
        ids = np.concatenate([ids for group in one.groups for ids in (*group.prompts, *group.targets)])
        assert 0 <= ids.min() <= ids.max() < other.vocab_size
        assert other.eos_id not in ids


def test_a_row_that_no_question_fits_in_is_refused(tokenizer):
    with pytest.raises(ValueError, match="tokens of a row = 4: must be long enough"):
        conditions(passages_of(tokenizer), tokenizer, 4, questions=4, seed=0)


def test_a_text_of_few_tokens_is_refused(tokenizer):
    few = Passages(tokenizer.encode("abab" * 50), tokenizer.eos_id, "few")
    with pytest.raises(ValueError, match="few: different tokens = 2: must be at least 32"):
        conditions(few, tokenizer, 64, 4, seed=0)
