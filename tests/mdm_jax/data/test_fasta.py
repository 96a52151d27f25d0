"""FASTA: what is read from well-formed files of any shape, and the line that is named in a broken one."""

import gzip
import random
import tracemalloc

import numpy as np
import pytest

from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.nucleotides import NucleotideTokenizer, reverse_complement
from mdm_jax.data.prepare import main
from mdm_jax.data.sources.fasta import REGION_LETTERS, Record, fasta_documents, fasta_records
from mdm_jax.data.sources.pieces import labelled
from mdm_jax.data.store import open_split
from mdm_jax.evaluate.perplexity.corpus import read_corpus, source_of
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec, TokenizerKind, TokenizerSpec


def letters(count: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=count))


def wrapped(header: str, sequence: str, width: int = 70, end: str = "\n") -> str:
    lines = [sequence[i : i + width] for i in range(0, len(sequence), width)]
    return end.join([f">{header}", *lines, ""])


def write(path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_records_are_read_with_their_headers_and_in_upper_case(tmp_path):
    path = write(tmp_path / "a.fa", ">one  label=x\nACgt\nnN\n\n>two\nUu\n>\nRYSWKMBDHVryswkmbdhv\n")
    expected = [Record("one  label=x", 1, "ACGTNN"), Record("two", 5, "TT"), Record("", 7, "N" * 20)]
    assert list(fasta_records(path)) == expected
    assert list(fasta_documents(path)) == ["ACGTNN", "TT", "N" * 20]


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
@pytest.mark.parametrize("width", [1, 70, 10**7])
def test_regions_do_not_depend_on_how_the_file_is_written(tmp_path, end, width):
    long, short = letters(2 * REGION_LETTERS + 5), letters(30, 1)
    text = wrapped("long", long, width, end) + wrapped("short", short.lower(), width, end)
    path = write(tmp_path / "a.fna", text.removesuffix(end))
    regions = list(fasta_documents(path))
    assert [len(region) for region in regions] == [REGION_LETTERS, REGION_LETTERS, 5, 30]
    assert ("".join(regions[:3]), regions[3]) == (long, short)


def test_compressed_files_may_have_several_members(tmp_path):
    """Files of bgzip have them."""
    first, second = wrapped("a", letters(9000)), wrapped("b", letters(100, 1))
    path = write(tmp_path / "a.fa.gz", gzip.compress(first.encode()) + gzip.compress(second.encode()))
    assert [record.letters for record in fasta_records(path)] == [letters(9000), letters(100, 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nACGT\n>a\nAC\n", r"a\.fa: line 2: must be a header, which begins with >, before the first letters"),
        (">a\nACGT\nACXT\n", r"a\.fa: line 3: character 3, 'X': must be a nucleotide \(ACGTN, U or IUPAC's RYSW"),
        (">a\nMKVL*\n", "a.fa: line 2: character 4, 'L'"),
        (">a\nAC-GT\n", "a.fa: line 2: character 3, '-'"),
        (">a\nACGé\n", "a.fa: line 2: character 4, 'é'"),
        (">a\nAC\x00GT\n", r"line 2: character 3, '\\x00'"),
        (">a\n>b\nACGT\n", "a.fa: line 1: a header without letters after it"),
        (">a\nACGT\n>b\n \n", "a.fa: line 3: a header without letters after it"),
        ("", "a.fa: holds no record"),
        (">" + "x" * 70000 + "\nAC\n", "line 1: a header of more than 65536 bytes"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_place(tmp_path, text, said):
    path = write(tmp_path / "a.fa", text)
    for read in (fasta_documents, fasta_records):
        with pytest.raises(ValueError, match=said):
            list(read(path))


def test_a_file_that_is_cut_short_names_the_last_line(tmp_path):
    whole = gzip.compress(wrapped("a", letters(200_000)).encode())
    path = write(tmp_path / "a.fa.gz", whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.fa\.gz: corrupt or cut short \(.*\), at line 1?\d+"):
        list(fasta_documents(path))


def test_a_long_record_is_refused_where_whole_records_are_asked_for(tmp_path):
    path = write(tmp_path / "a.fa", ">a\n" + "A" * (3 << 19) + "\n")
    assert sum(map(len, fasta_documents(path))) == 3 << 19
    with pytest.raises(ValueError, match=r"line 1: a record of more than 1048576 letters"):
        list(fasta_records(path))


def test_a_chromosome_in_one_line_needs_little_memory(tmp_path):
    path = write(tmp_path / "a.fa", b">a\n" + b"ACGTTGCA" * (2 << 20))
    tracemalloc.start()
    count = sum(1 for _ in fasta_documents(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == (16 << 20) // REGION_LETTERS
    assert most < 12 << 20


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> DataSpec:
    """A genome of 60 regions, prepared by the command."""
    folder = tmp_path_factory.mktemp("genome")
    path = write(folder / "genome.fna.gz", gzip.compress(wrapped("g", letters(60 * REGION_LETTERS, 2)).encode()))
    out = str(folder / "prepared")
    flags = ["--path", path, "--out", out, "--validation-fraction", "0.2", "--jobs", "1"]
    assert main(["--corpus", "fasta", "--tokenizer", "nucleotides", *flags]) == 0
    tokenizer = TokenizerSpec(TokenizerKind.NUCLEOTIDES, 6)
    corpus = CorpusSpec(CorpusSource.FASTA, path)
    return DataSpec(corpus, tokenizer, 64, 0.2, out, reverse_complement=True)


def test_validation_is_whole_regions_that_the_training_text_does_not_have(genome):
    tokenizer = open_corpus(genome).tokenizer
    strands = {}
    for split in ("train", "validation"):
        store = open_split(genome.directory, split)
        ids = store.tokens(0, len(store))
        regions = np.split(ids, np.flatnonzero(ids == 5) + 1)[:-1]
        assert {len(region) for region in regions} == {REGION_LETTERS + 1}
        assert len(regions) > 3
        both = [strand for region in regions for strand in (region[:-1], reverse_complement(region[:-1]))]
        texts = [tokenizer.decode(strand) for strand in both]
        strands[split] = {text[i : i + 40] for text in texts for i in range(len(text) - 39)}
    assert not strands["train"] & strands["validation"]


def test_the_perplexity_command_reads_genomes(tmp_path):
    path = write(tmp_path / "a.fna.gz", gzip.compress(wrapped("a", letters(100)).encode()))
    assert (source_of(path), source_of(str(tmp_path))) == (CorpusSource.FASTA, CorpusSource.FASTA)
    corpus = read_corpus("a", path, "text", [NucleotideTokenizer()], 1000)
    (encoded,) = corpus.encoded.values()
    assert NucleotideTokenizer().decode(encoded.ids) == letters(100)


def test_regions_of_n_count_once(tmp_path):
    path = write(tmp_path / "a.fa", wrapped("a", "N" * (5 * REGION_LETTERS)) + wrapped("b", letters(100)))
    documents = list(labelled(CorpusSpec(CorpusSource.FASTA, path), 0.5))
    assert [document.text for document in documents] == ["N" * REGION_LETTERS, letters(100)]


def test_a_corpus_of_other_text_names_what_is_no_nucleotide(tmp_path, capsys):
    path = write(tmp_path / "a.txt", "ACGT acgt")
    flags = ["--tokenizer", "nucleotides", "--path", path, "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main(["--corpus", "text", *flags]) == 1
    assert "character 5, ' ': must be a nucleotide" in capsys.readouterr().err
