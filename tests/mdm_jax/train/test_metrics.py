"""Metrics parts: a resumed run repeats no row and loses none, and a line that a crash cut off is left out."""

import json
import resource
from pathlib import Path

import pytest
from bucket import Bucket, in_memory

from mdm_jax.files.layout import steps_in
from mdm_jax.files.storage import as_path
from mdm_jax.train.metrics import MetricsWriter, read_metrics
from mdm_jax.train.step_folders import remove_unfinished


def row(step: int) -> dict[str, float | int]:
    return {"step": step, "loss": 1 / step}


def write(folder: Path, first: int, last: int, every: int, die_at: int = 0) -> None:
    """Rows first + 1 … last, a part for each `every`, or up to row `die_at` (each row is in the file at once)."""
    writer = MetricsWriter(as_path(folder), first)
    for step in range(first + 1, last + 1):
        writer.write(row(step))
        if step == die_at:
            break
        if step % every == 0:
            writer.next_part(step)
    writer.close()


def test_rows_come_back_in_order_and_parts_end_at_checkpoints(tmp_path) -> None:
    write(tmp_path, 0, 25, every=10)
    assert read_metrics(as_path(tmp_path)) == [row(step) for step in range(1, 26)]
    names = sorted(part.name for part in tmp_path.iterdir())
    assert names == ["0000000000.jsonl", "0000000010.jsonl", "0000000020.jsonl"]
    assert len((tmp_path / names[1]).read_text().splitlines()) == 10


@pytest.mark.parametrize("checkpoint", [0, 10, 20])
def test_resuming_at_a_checkpoint_leaves_the_rows_of_one_run(tmp_path, checkpoint) -> None:
    write(tmp_path, 0, 40, every=10, die_at=27)
    write(tmp_path, checkpoint, 40, every=10)
    assert read_metrics(as_path(tmp_path)) == [row(step) for step in range(1, 41)]


def test_a_row_can_be_read_at_once(tmp_path) -> None:
    writer = MetricsWriter(as_path(tmp_path), 0)
    writer.write(row(1))
    assert read_metrics(as_path(tmp_path)) == [row(1)]
    writer.close()


def test_a_line_cut_off_is_left_out_at_every_byte(tmp_path) -> None:
    write(tmp_path, 0, 12, every=10)
    part = tmp_path / "0000000010.jsonl"
    whole = part.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(len(whole) + 1):
        part.write_bytes(whole[:size])
        rows = 10 + (size >= first) + (size == len(whole))
        assert read_metrics(as_path(tmp_path)) == [row(step) for step in range(1, rows + 1)]


def test_files_that_are_no_parts_are_left_alone(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "plot.jsonl").write_text("mine")
    write(tmp_path, 0, 3, every=10)
    write(tmp_path, 0, 3, every=10)
    assert [json.dumps(r) for r in read_metrics(as_path(tmp_path))] == [json.dumps(row(step)) for step in (1, 2, 3)]
    assert (tmp_path / "plot.jsonl").read_text() == "mine"


def test_a_part_that_cannot_be_written_is_named(tmp_path) -> None:
    writer = MetricsWriter(as_path(tmp_path), 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match=r"metrics .*/0000000000.jsonl not written: File too large"):
            writer.write(row(1))
        with pytest.raises(OSError, match=r"metrics .*/0000000000.jsonl not written: File too large"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.close()  # closed by now, whatever went wrong


def test_an_object_store_has_no_empty_folders(monkeypatch) -> None:
    """There, making a folder does nothing, and listing what is not there fails."""
    for name in ("mkdir", "makedirs"):
        monkeypatch.setattr(Bucket, name, lambda *_, **__: None)
    folder = as_path("s3://bucket/run")
    with in_memory():
        assert read_metrics(folder / "metrics") == []
        MetricsWriter(folder / "metrics", 0).close()
        assert steps_in(folder / "checkpoints") == []
        remove_unfinished(folder / "checkpoints")


def test_object_stores_get_whole_parts() -> None:
    """A store that cannot append gets a part when the part is closed."""
    folder = as_path("s3://bucket/run/metrics")
    with in_memory() as bucket:
        writer = MetricsWriter(folder, 0)
        for step in range(1, 6):
            writer.write(row(step))
            if step == 3:
                assert read_metrics(folder) == []
                writer.next_part(3)
        assert read_metrics(folder) == [row(step) for step in (1, 2, 3)]
        writer.close()
        assert read_metrics(folder) == [row(step) for step in range(1, 6)]
        assert [name.rpartition("/")[2] for name in sorted(bucket.find("/bucket"))] == [
            "0000000000.jsonl",
            "0000000003.jsonl",
        ]
        MetricsWriter(folder, 3).close()
        assert read_metrics(folder) == [row(step) for step in (1, 2, 3)]
