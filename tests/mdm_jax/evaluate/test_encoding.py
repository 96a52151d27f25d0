"""Prompts and targets as ids: no token over the cut, no blank that the text lacks, and errors that name the pair."""

import functools
import io

import numpy as np
import pytest
import sentencepiece

from mdm_jax.data.tokenizer import ByteTokenizer, SentencePieceTokenizer, Tokenizer
from mdm_jax.evaluate.likelihood.encoding import encode_pairs

TEXTS = ["the quick brown fox jumps over the lazy dog", "hello world, this is a text about nothing much"] * 40
LLAMA = {"add_dummy_prefix": True, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
SETTINGS = {
    "like Llama's": LLAMA | {"byte_fallback": True, "vocab_size": 330},
    "by default": {"vocab_size": 70},
    "without a prefix": LLAMA | {"add_dummy_prefix": False, "byte_fallback": True, "vocab_size": 330},
}


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    if name == "bytes":
        return ByteTokenizer()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, model_type="bpe", minloglevel=2, **SETTINGS[name]
    )
    return SentencePieceTokenizer(model.getvalue())


CUTS = [
    ("the quick", " brown fox"),
    ("the quick ", "brown fox"),
    ("the qui", "ck brown"),
    ("", "the fox"),
    ("hello world, this", " is  a text"),
]


@pytest.mark.parametrize("name", ["bytes", *SETTINGS])
@pytest.mark.parametrize(("prompt", "target"), CUTS)
def test_the_ids_of_both_parts_decode_to_the_text(name, prompt, target):
    made = tokenizer(name)
    (found,) = encode_pairs([(prompt, target)], made.vocab_size, 64, lambda: made)
    assert made.decode(np.concatenate([found.prompt, found.target])) == prompt + target
    assert made.decode(found.prompt) == prompt
    (of_ids,) = encode_pairs([(found.prompt, target)], made.vocab_size, 64, lambda: made)
    np.testing.assert_array_equal(of_ids.target, found.target)


def test_the_prefix_matters_and_the_ids_are_those_of_the_whole_text():
    """A cut between words gives the ids of the whole text; a target by itself has one blank too many."""
    made = tokenizer("like Llama's")
    (found,) = encode_pairs([("the quick", " brown fox")], made.vocab_size, 64, lambda: made)
    np.testing.assert_array_equal(np.concatenate([found.prompt, found.target]), made.encode("the quick brown fox"))
    alone = np.concatenate([made.encode("the quick"), made.encode(" brown fox")])
    assert made.decode(alone) == "the quick  brown fox"


def no_tokenizer() -> Tokenizer:
    raise AssertionError("ids need no tokenizer")


def test_ids_are_taken_as_they_are():
    given = [([], [1, 2]), (np.array([3], np.uint8), np.array([4], np.int64)), ((5,), range(3))]
    found = encode_pairs(given, 9, 4, no_tokenizer)
    assert [(one.prompt.tolist(), one.target.tolist()) for one in found] == [([], [1, 2]), ([3], [4]), ([5], [0, 1, 2])]
    assert {one.prompt.dtype for one in found} | {one.target.dtype for one in found} == {np.dtype(np.int32)}


BAD = [
    (("a", ""), r"pairs\[1\]: target = '': must be at least one token"),
    (("a", []), r"pairs\[1\]: target = \[\]"),
    (("a" * 8, "b"), r"pairs\[1\]: tokens of prompt and target = 9: must be at most 8, the model's longest row"),
    (([1], [257]), r"pairs\[1\]: target: ids = '257 to 257': must be from 0 to 256"),
    (([-1], [1]), r"pairs\[1\]: prompt: ids = '-1 to -1'"),
    (([1], [[1]]), r"pairs\[1\]: target = 'int64 \[1, 1\]': must be a text, or a list of ids"),
    (([1], [0.5]), r"pairs\[1\]: target = 'float64 \[1\]'"),
    (([1],), r"pairs\[1\] = \(\[1\],\): must be a prompt and a target"),
    (5, r"pairs\[1\] = 5: must be a prompt and a target"),
    (([1], [[1], [2, 3]]), r"pairs\[1\]: target = 'object \[\]': must be a text, or a list of ids"),
    ("ab", r"pairs\[1\] = 'ab': must be a prompt and a target"),
]


@pytest.mark.parametrize(("pair", "said"), BAD)
def test_a_bad_pair_is_named(pair, said):
    with pytest.raises(ValueError, match=said):
        encode_pairs([("a", "b"), pair], 257, 8, ByteTokenizer)
