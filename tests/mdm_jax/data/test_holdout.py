"""Validation text of grouped sources comes from whole groups, and repeats next to nothing of the training text."""

import collections
import itertools
import random

from mdm_jax.data.sources.holdout import (
    MOST_SHARED,
    WINDOW_BYTES,
    Grouped,
    hold_out,
    shared_windows,
    validation_groups,
    windows,
)
from mdm_jax.data.sources.pieces import labelled
from mdm_jax.data.sources.pydoc import pydoc_documents
from mdm_jax.spec import CorpusSpec


def cut_windows(content):
    return [content[i : i + WINDOW_BYTES] for i in range(len(content) - WINDOW_BYTES + 1)]


def share_by_brute_force(validation, training):
    """The share of the validation texts' windows that some training text has."""
    own = [window for content in validation for window in cut_windows(content)]
    known, found = set(own), set()
    for content in training:
        found |= known.intersection(cut_windows(content))
    return sum(window in found for window in own) / len(own)


def test_windows_have_equal_hashes_exactly_where_their_bytes_are_equal():
    draw = random.Random(0)
    for length in (0, 1, 49, 50, 51, 500):
        content = bytes(draw.choices(b"\0\1", k=length)) * 2
        hashes = windows(content).tolist()
        own = cut_windows(content)
        assert len(hashes) == len(own)
        assert len(set(hashes)) == len(set(own)) == len(set(zip(hashes, own, strict=True)))


def test_shared_windows_are_those_of_an_exhaustive_search():
    draw = random.Random(1)
    pieces = [bytes(draw.choices(range(256), k=draw.randint(20, 90))) for _ in range(30)]
    texts = [b"".join(draw.choices(pieces, k=draw.randint(0, 6))) for _ in range(60)]
    validation, training = texts[:20], texts[20:]
    for content, share in zip(validation, shared_windows(validation, training), strict=True):
        own = cut_windows(content)
        known = set(itertools.chain.from_iterable(map(cut_windows, training)))
        expected = sum(window in known for window in own) / len(own) if own else 0
        assert abs(share - expected) < 1e-12
    assert shared_windows([], training) == []
    assert shared_windows(validation, []) == [0.0] * 20


def test_groups_meet_the_fraction_whatever_the_order_and_the_sizes():
    draw = random.Random(2)
    for fraction in (0.01, 0.02, 0.1, 0.4):
        sizes = {f"package {i}": int(draw.paretovariate(0.8) * 1000) for i in range(120)}
        chosen = validation_groups(sizes, fraction)
        held = sum(sizes[name] for name in chosen) / sum(sizes.values())
        assert 0.8 * fraction < held < 1.11 * fraction
        assert validation_groups(dict(sorted(sizes.items())), fraction) == chosen
    assert validation_groups({"a": 5, "b": 900}, 0.02) == {"a"}, "two groups give two splits"
    assert validation_groups({"a": 5}, 0.02) == set()


def test_a_group_is_in_one_split_and_its_quotations_of_the_other_are_dropped():
    draw = random.Random(3)

    def sentence():
        return "".join(draw.choices("abcdefghij ", k=400))

    own = {f"package {i}": [sentence() for _ in range(10)] for i in range(40)}
    quoted = own["package 0"][0]
    grouped = [Grouped(name, text) for name, texts in own.items() for text in texts]
    grouped += [Grouped(f"package {i}", f"{i}{quoted}{i}") for i in range(40)]
    kept = hold_out(grouped, 0.2)
    split_of = collections.defaultdict(set)
    for text, validation in kept:
        split_of[next(name for name, other in grouped if other == text)].add(validation)
    assert all(len(splits) == 1 for splits in split_of.values())
    sides = [[text.encode() for text, held in kept if held is side] for side in (True, False)]
    assert share_by_brute_force(*sides) == 0
    dropped = {text for _, text in grouped} - {text for text, _ in kept}
    assert dropped
    assert all(quoted in text for text in dropped)
    assert [text for _, text in grouped if text not in dropped] == [text for text, _ in kept], "the order is kept"


def test_the_documentation_corpus_has_no_validation_text_in_its_training_text():
    """The first 600 kB; a split by document gives 21% there, and 27% for the whole corpus."""
    some = list(labelled(CorpusSpec(max_bytes=600_000), 0.1))
    validation, training = ([d.content for d in some if d.validation is side] for side in (True, False))
    held = sum(map(len, validation)) / sum(len(d.content) for d in some)
    assert 0.08 < held < 0.111
    assert share_by_brute_force(validation, training) < MOST_SHARED / 10
    group: dict[str, str] = {}
    for name, text in itertools.islice(pydoc_documents(), 2 * len(some)):
        group.setdefault(text, name)
    names = [{group[d.text] for d in some if d.validation is side} for side in (True, False)]
    assert names[0]
    assert not names[0] & names[1]
