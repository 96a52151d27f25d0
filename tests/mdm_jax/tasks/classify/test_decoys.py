"""Decoys: uniform over all sequences with the same neighbours, and never from the wrong side of the split."""

import itertools
import random
import re
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from command_line import one_line

from mdm_jax.data.sources.pieces import labelled
from mdm_jax.spec import CorpusSource, CorpusSpec
from mdm_jax.tasks.classify.decoys import dinucleotide_shuffle, main
from mdm_jax.tasks.classify.examples import read_examples


def pairs(text: str) -> Counter[str]:
    return Counter(map("".join, itertools.pairwise(text)))


@pytest.mark.parametrize("text", ["ACACGTAC", "AACAAGA", "ACGTACGT", "AAAAAA", "GATTACA"])
def test_a_shuffle_is_uniform_over_all_texts_with_the_same_pairs(text):
    every = {"".join(order) for order in itertools.permutations(text)}
    possible = sorted(other for other in every if other[0] == text[0] and pairs(other) == pairs(text))
    draw = np.random.default_rng(0)
    seen = Counter(dinucleotide_shuffle(text, draw) for _ in range(400 * len(possible)))
    assert sorted(seen) == possible
    if len(possible) > 1:
        assert scipy.stats.chisquare([seen[other] for other in possible]).pvalue > 0.001


def test_a_long_shuffle_keeps_pairs_and_not_triples():
    text = "".join(random.Random(0).choices("ACGT", k=500)) + "GATC" * 30
    other = dinucleotide_shuffle(text, np.random.default_rng(1))
    assert (other[0], other[-1], pairs(other)) == (text[0], text[-1], pairs(text))
    assert other.count("GATC") < text.count("GATC") / 2
    for short in ("", "A", "AC"):
        assert dinucleotide_shuffle(short, np.random.default_rng(0)) == short


@pytest.mark.parametrize("kind", ["shuffled", "reversed"])
def test_the_files_have_windows_of_their_side_of_the_split(tmp_path, kind):
    genome = tmp_path / "genome.fa"
    sequence = "".join(random.Random(1).choices("ACGT", k=30 * 8192))
    genome.write_text(f">g\n{sequence[:9000]}{'N' * 500}{sequence[9500:]}\n")
    flags = ["--length", "50", "--train", "60", "--test", "20", "--validation-fraction", "0.2"]
    assert main([str(genome), "--kind", kind, "--out", str(tmp_path / "out"), *flags]) == 0
    sides = {False: "", True: ""}
    for region in labelled(CorpusSpec(CorpusSource.FASTA, str(genome)), 0.2):
        sides[region.validation] += region.text + "-"
    used = []
    for name, count, validation in (("train", 60, False), ("test", 20, True)):
        examples = read_examples(str(tmp_path / "out" / f"{name}.fasta"))
        assert Counter(example.label for example in examples) == {"real": count // 2, kind: count // 2}
        assert {len(example.text) for example in examples} == {50}
        for example in examples:
            assert "N" not in example.text
            real = example.text[::-1] if example.label == "reversed" else example.text
            assert (real in sides[validation]) is (example.label != "shuffled")
            used.append(real)
    assert len(set(used)) == 80


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--train", "100000"], r"--train = 100000: must be at most the \d+ windows of 128 letters in these regions"),
        (["--train", "11"], "--train = 11: must be an even number"),
        (["--length", "3"], "--length = 3: must be from 4 to 8192"),
        (["--validation-fraction", "1"], "--validation-fraction = 1.0"),
        (["--seed", "-1"], "--seed = -1"),
        (["--kind", "random"], "invalid choice"),
    ],
)
def test_bad_settings_are_one_line(tmp_path, capsys, flags, said):
    genome = tmp_path / "genome.fa"
    genome.write_text(">g\n" + "ACGTTGCA" * 4000 + "\n")
    assert re.search(said, one_line(main, [str(genome), "--out", str(tmp_path / "out"), *flags], capsys))
