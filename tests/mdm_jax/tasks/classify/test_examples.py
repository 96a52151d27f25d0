"""Labelled examples: what is read from FASTA and CSV, and the line that is named in a broken file."""

import gzip

import numpy as np
import pytest

from mdm_jax.data.nucleotides import NucleotideTokenizer
from mdm_jax.data.tokenizer import ByteTokenizer
from mdm_jax.tasks.classify.data import load_split
from mdm_jax.tasks.classify.examples import (
    Example,
    encode_examples,
    hold_out,
    known_labels,
    padded_to,
    read_examples,
)


def write(path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_a_csv_file(tmp_path, name, end):
    text = end.join(["\ufefflabel,id,sequence", "x,1,ACGT", ' y ,2,"AC,""', 'G"', ""])
    expected = [Example("ACGT", "x", 2), Example(f'AC,"{end}G', "y", 4)]
    assert read_examples(write(tmp_path / name, text)) == expected


def test_records_of_a_fasta_file(tmp_path):
    path = write(tmp_path / "a.fa.gz", ">one label=coding x=2\nac\ngt\n>two\tlabel=other\nN\n")
    assert read_examples(path) == [Example("ACGT", "coding", 1), Example("N", "other", 4)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "text,sequence,label\n", "columns = 'text, sequence, label': must be sequence or text, and label"),
        ("a.csv", "sequence,class\nA,x\n", "columns = 'sequence, class'"),
        ("a.csv", "", "columns = ''"),
        ("a.csv", "text,label\n", "a.csv: examples = 0: must be at least one"),
        ("a.csv", "text,label\na,x\n,y\n", "a.csv: line 3: text = '': must be not empty"),
        ("a.csv", "text,label\na,x\nb, \n", "a.csv: line 3: label"),
        ("a.csv", "text,label\na\n", "a.csv: line 2: must have as many fields as the first line"),
        ("a.csv", "text,label\na,x,y\n", "a.csv: line 2: must have as many fields"),
        ("a.csv", 'text,label\n"a"b,x\n', "a.csv: line 2: not CSV"),
        ("a.fa", ">a\nACGT\n", "a.fa: line 1: must have one word label=NAME in the header"),
        ("a.fa", ">a label=x label=y\nACGT\n", "a.fa: line 1: must have one word label=NAME"),
        ("a.fa", ">a label=x\nAC!\n", "a.fa: line 2: character 3, '!'"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_place(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said):
        read_examples(write(tmp_path / name, text))


def test_text_that_is_not_utf_8_and_files_that_are_cut_short(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + b"ab,x\n" * 3 + b"\xff,x\n")
    with pytest.raises(ValueError, match=r"a\.csv: after line \d: not UTF-8"):
        read_examples(str(tmp_path / "a.csv"))
    whole = gzip.compress(("text,label\n" + "".join(f"{i * 7919 % 10007},x\n" for i in range(9000))).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.csv\.gz: corrupt or cut short"):
        read_examples(str(tmp_path / "a.csv.gz"))
    with pytest.raises(ValueError, match=r"examples = 'absent\.csv': must be a FASTA file, or a CSV file"):
        read_examples("absent.csv")


def test_held_out_texts_do_not_depend_on_the_others_or_on_their_order():
    examples = [Example(f"text {i % 300}", "xy"[i % 2], i) for i in range(600)]
    train, test = hold_out(examples, 0.2, seed=0)
    assert not {example.text for example in train} & {example.text for example in test}
    assert 60 < len(test) < 180
    fewer = hold_out(examples[::-1][:100], 0.2, seed=0)[1]
    assert {example.text for example in fewer} == {e.text for e in examples[500:]} & {e.text for e in test}
    assert hold_out(examples, 0.2, seed=1)[1] != test


def test_texts_become_rows_and_long_ones_are_cut_and_counted():
    examples = [Example("ACG", "x", 1), Example("ACGTA", "y", 2), Example("T", "x", 3)]
    rows = encode_examples("a", examples, ["x", "y"], NucleotideTokenizer(), 4)
    assert rows.tokens_SL.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [3, 0, 0, 0]]
    assert (rows.length_S.tolist(), rows.label_S.tolist(), rows.cut) == ([3, 4, 1], [0, 1, 0], 1)
    longer = padded_to(rows, 6)
    np.testing.assert_array_equal(longer.tokens_SL[:, :4], rows.tokens_SL)
    assert longer.tokens_SL.shape == (3, 6)
    assert rows.take(np.array([2, 0])).length_S.tolist() == [1, 3]


def test_what_a_model_cannot_read_is_named():
    encode = encode_examples
    with pytest.raises(ValueError, match=r"a\.csv: line 7: character 2, 'X': must be a nucleotide"):
        encode("a.csv", [Example("AX", "x", 7)], ["x", "y"], NucleotideTokenizer(), 4)
    with pytest.raises(ValueError, match=r"line 7: label = 'z': must be one to train on: x, y"):
        encode("a.csv", [Example("AC", "z", 7)], ["x", "y"], ByteTokenizer(), 4)


def test_one_class_or_too_few_tests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="labels to train on = \"all 1 are 'x'\": must be of at least two classes"):
        known_labels("a", [Example("A", "x", 1)])
    with pytest.raises(ValueError, match="labels to train on = 257: must be at most 256"):
        known_labels("a", [Example("A", str(i), 1) for i in range(257)])
    train = write(tmp_path / "train.csv", "text,label\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(90)))
    split = load_split(train, None, 0.2)
    assert (len(split.train) + len(split.test), split.labels) == (90, ["x", "y"])
    assert "WARNING" not in split.summary
    test = write(tmp_path / "test.csv", "text,label\n" + "".join(f"{i},x\n" for i in range(80, 100)))
    same = load_split(train, test, 0.2)
    assert (same.chance, "WARNING: 10 test texts are training texts too" in same.summary) == (1.0, True)
    with pytest.raises(ValueError, match="test examples = 9: must be at least 10"):
        load_split(train, write(tmp_path / "few.csv", "text,label\n" + "a,x\n" * 9), 0.2)
