"""A Parquet file of few bytes that asks for gigabytes is refused by its metadata, or read a little at a time."""

import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from analysis import read_runs
from mdm_jax.data.sources.records import parquet_documents

MEBI = 1 << 20
LONG = pyarrow.array(["x" * MEBI])
PEAK = '\nprint(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
READ_TEXT = """import sys
from mdm_jax.data.sources.records import parquet_documents
print(sum(map(len, parquet_documents(sys.argv[1], "text"))))"""
READ_RUNS = "import sys, analysis; print(len(analysis.read_runs(sys.argv[1])))"


def write(path: Path, columns: dict, groups: int = 1) -> str:
    table = pyarrow.table(columns)
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as file:
        for _ in range(groups):
            file.write_table(table)
    assert path.stat().st_size < 100_000
    return str(path)


def shared(rows: int) -> pyarrow.Array:
    """A text of 1 MiB in every row, stored once."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), LONG)


def read_in_a_process(program: str, path: str) -> tuple[int, int]:
    """What the program prints, and its peak memory in MiB."""
    command = [sys.executable, "-c", program + PEAK, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said, kibibytes = map(int, done.stdout.split())
    return said, kibibytes >> 10


@pytest.mark.parametrize(
    ("column", "groups", "said"),
    [
        (pyarrow.array([2.5] * MEBI), 16, "16777216 rows, a run table has at most 1000000"),
        (pyarrow.array([[0] * MEBI], pyarrow.list_(pyarrow.int8())), 64, "67108864 values, a run table has at most"),
        (pyarrow.array(["x" * (16 * MEBI)]), 1, r"column loss grows from \d+ to 1677\d+ bytes"),
    ],
)
def test_a_table_of_more_than_runs_is_refused(tmp_path: Path, column: pyarrow.Array, groups: int, said: str) -> None:
    path = write(tmp_path / "runs.parquet", {"loss": column}, groups)
    with pytest.raises(ValueError, match=rf"runs\.parquet: not a readable \.parquet table \({said}"):
        read_runs(path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_a_text_that_many_runs_share_is_kept_once(tmp_path: Path) -> None:
    rows = 300
    numbers = {name: pyarrow.array([1e6 + i for i in range(rows)]) for name in ("params_non_embedding", "tokens")}
    columns = {**numbers, "loss": numbers["tokens"], "family": pyarrow.array(["arm"] * rows)}
    plain = read_in_a_process(READ_RUNS, write(tmp_path / "plain.parquet", columns))
    runs, peak = read_in_a_process(READ_RUNS, write(tmp_path / "long.parquet", {**columns, "note": shared(rows)}))
    assert runs == plain[0] == rows
    assert peak - plain[1] < 100  # 300 MiB more if it were kept for each


def test_a_corpus_whose_text_unfolds_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "text.parquet", {"text": pyarrow.array(["x" * (16 * MEBI)])})
    with pytest.raises(ValueError, match=r"text\.parquet: row group 0 grows from \d+ to 1677\d+ bytes"):
        list(parquet_documents(path, "text"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_a_text_that_many_documents_share_is_read_a_little_at_a_time(tmp_path: Path) -> None:
    rows = 500
    characters, peak = read_in_a_process(READ_TEXT, write(tmp_path / "text.parquet", {"text": shared(rows)}))
    assert characters == rows * MEBI
    assert peak < 600
