"""Pairs that fit a row: rolling windows score each token once, and are those of the harness."""

import pytest
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mdm_jax.evaluate.harness.pairs import Pair, cut_left, rolling_windows, split_text


@pytest.mark.parametrize("length", [0, 1, 6, 7, 8, 13, 14, 15, 40])
@pytest.mark.parametrize("context_tokens", [0, 1, 3, 7])
@pytest.mark.parametrize("prefix", [(), (99,)])
def test_each_token_is_scored_once_behind_the_tokens_before_it(length, context_tokens, prefix):
    text = list(range(length))
    windows = rolling_windows(text, prefix, 8, context_tokens)
    assert [token for window in windows for token in window.target] == text
    for i, window in enumerate(windows):
        assert window.length <= 8
        if i == 0:
            assert window.prompt == prefix
        else:
            assert len(window.prompt) >= context_tokens
            assert [*window.prompt, *window.target] == text[
                window.target[-1] + 1 - window.length : window.target[-1] + 1
            ]
    assert all(window.length == 8 for window in windows[1:]), "the last window has as much context as fits"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 14, 30])
@pytest.mark.parametrize("context_tokens", [1, 3])
def test_the_windows_are_those_of_the_harness_for_hugging_face_models(length, context_tokens):
    text = list(range(length))
    theirs = map(make_disjoint_window, get_rolling_token_windows(text, 99, 7, context_tokens))
    assert rolling_windows(text, [99], 8, context_tokens) == [Pair(tuple(a), tuple(b)) for a, b in theirs]


def test_a_row_without_room_for_a_new_token_is_refused():
    with pytest.raises(ValueError, match="rolling_context = 8: must be from 0 to 7, less than a row"):
        rolling_windows([1, 2], [], 8, 8)


def test_blanks_at_the_end_of_a_context_move_to_the_continuation():
    assert split_text("an answer: ", "yes") == ("an answer:", " yes")
    assert split_text("two\n\n", "x") == ("two", "\n\nx")
    assert split_text("  ", "x") == ("", "  x")
    assert split_text("a", " b ") == ("a", " b ")


def test_a_long_context_is_cut_on_its_left_and_a_long_answer_refused():
    assert cut_left(Pair((1, 2, 3), (4, 5)), 4, "…") == Pair((2, 3), (4, 5))
    assert cut_left(Pair((1, 2, 3), (4, 5)), 5, "…") == Pair((1, 2, 3), (4, 5))
    assert cut_left(Pair((1, 2, 3), (4, 5)), 2, "…") == Pair((), (4, 5))
    with pytest.raises(ValueError, match=r"tokens of the answer 'x{40}…' = 2: must be from 1 to 1, a row of the model"):
        cut_left(Pair((1,), (4, 5)), 1, "x" * 99)
