"""Shards are verified block by block when they are read: at once at the start, and never a token of a damaged block."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bucket import in_memory
from small_corpus import data_spec, prepared

from mdm_jax.data.build import build_shards
from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.manifest import (
    BLOCK_BYTES,
    MANIFEST_FILE,
    SPLITS,
    Manifest,
    check_matches,
    data_hash,
    read_manifest,
    write_manifest,
)
from mdm_jax.data.prepare import prepare
from mdm_jax.data.shards import ShardWriter
from mdm_jax.data.store import open_split
from mdm_jax.files.storage import as_path
from mdm_jax.spec import CorpusSpec, TokenizerSpec

BLOCK_TOKENS = BLOCK_BYTES // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus with several shards of several blocks each."""
    root = tmp_path_factory.mktemp("blocks")
    data = data_spec(root, count=4000)
    folder = root / "shards"
    build_shards(data, as_path(folder), shard_tokens=2 * BLOCK_TOKENS + 1000)
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    """A copy that may be damaged."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def flip(path, byte):
    with open(path, "r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1]))


def test_a_flipped_bit_in_any_block_of_any_shard_is_refused_and_the_others_are_read(copied):
    manifest = read_manifest(copied)
    expected = {name: whole(open_split(copied, name, verify=False)) for name in ("train", "validation")}
    blocks = 0
    for name in ("train", "validation"):
        first = 0
        for shard in manifest.split(name).shards:
            for start in range(0, shard.bytes, BLOCK_BYTES):
                blocks += 1
                size = min(BLOCK_BYTES, shard.bytes - start)
                byte = start + (blocks * 7919) % size
                flip(copied / shard.file, byte)
                store = open_split(copied, name, verify=False)
                token = first + byte // 2
                begin, end = first + start // 2, first + (start + size) // 2
                for place, length in ((token, 1), (max(0, token - 5), 10), (begin, 1), (end - 1, 1)):
                    with pytest.raises(ValueError, match=rf"{shard.file}: shard is corrupt \(bytes {start} to"):
                        store.tokens(place, min(length, len(store) - place))
                for place in {max(0, begin - 1), min(end, len(store) - 1)} - set(range(begin, end)):
                    assert store.tokens(place, 1)[0] == expected[name][place]
                flip(copied / shard.file, byte)
            first += shard.tokens
    assert blocks > 8
    assert len(manifest.train.shards) > 2


def compare(rows, expected):
    """Reads batch after batch, each of which must be the expected one."""
    for step, batch_BL in enumerate(expected):
        np.testing.assert_array_equal(rows.read(step, 0, 4), batch_BL)


def whole(store):
    return np.array(store.tokens(0, len(store)))


def test_a_run_reads_no_token_of_a_damaged_block(copied, monkeypatch):
    """The batches up to the damaged row are given, then the reading stops with the file's name."""
    monkeypatch.setattr("mdm_jax.data.store.SMALL_BYTES", 0)  # as a split of more than 64 MiB
    (Path(copied) / "x").mkdir()
    data = dataclasses.replace(data_spec(Path(copied) / "x", count=4000), directory=str(copied), seq_len=64)
    data = dataclasses.replace(data, corpus=read_manifest(copied).corpus)
    shard = read_manifest(copied).train.shards[1]
    rows = open_corpus(data).training_rows(4, 0)
    clean = [rows.read(step, 0, 4) for step in range(60)]
    flip(copied / shard.file, BLOCK_BYTES + 5)
    with pytest.raises(ValueError, match=rf"{shard.file}: shard is corrupt"):
        compare(open_corpus(data).training_rows(4, 0), clean)


@pytest.mark.parametrize("change", ["flipped", "absent", "short"])
def test_damaged_hashes_of_blocks_are_named(copied, change):
    sums = copied / "train-00001.bin.sums"
    if change == "flipped":
        flip(sums, 3)
    elif change == "short":
        sums.write_bytes(sums.read_bytes()[:-32])
    else:
        sums.unlink()
    store = open_split(copied, "train", verify=False)
    shards = read_manifest(copied).train.shards
    assert len(store.tokens(0, shards[0].tokens)) == shards[0].tokens
    with pytest.raises(ValueError, match=r"train-00001\.bin\.sums: (corrupt|absent)"):
        store.tokens(shards[0].tokens, 1)


def test_a_start_reads_sizes_and_no_contents(copied):
    """Other bytes of the right size: opening does not notice, and so did not read, and verifying does."""
    for shard in read_manifest(copied).train.shards:
        os.truncate(copied / shard.file, 0)
        os.truncate(copied / shard.file, shard.bytes)
    assert open_split(copied, "train", verify=False)
    for verify in (None, True):
        with pytest.raises(ValueError, match="shard is corrupt"):
            open_split(copied, "train", verify)


def as_version_1(folder):
    """Makes the folder what the first release wrote."""
    path = folder / MANIFEST_FILE
    tree = json.loads(path.read_text())
    tree["schema_version"] = 1
    for key in ("pydoc_version", "skipped"):
        del tree[key]
    for split in ("train", "validation"):
        for shard in tree[split]["shards"]:
            del shard["sums_sha256"]
            (folder / f"{shard['file']}.sums").unlink()
    path.write_text(json.dumps(tree))


def test_a_folder_of_the_first_release_is_read_and_verified_shard_by_shard(copied):
    before, expected = read_manifest(copied), whole(open_split(copied, "train", verify=False))
    as_version_1(copied)
    manifest = read_manifest(copied)
    assert manifest.data_hash == before.data_hash == data_hash(before.tokenizer_hash, before.train, before.validation)
    np.testing.assert_array_equal(whole(open_split(copied, "train", verify=False)), expected)
    first, second = manifest.train.shards[:2]
    flip(copied / second.file, second.bytes - 1)
    store = open_split(copied, "train", verify=False)
    assert store.tokens(0, 10).tolist() == expected[:10].tolist()
    with pytest.raises(ValueError, match=rf"{second.file}: shard is corrupt"):
        store.tokens(first.tokens, 1)


def test_a_folder_of_the_first_documentation_corpus_is_refused(tmp_path):
    data = prepared(tmp_path)
    path = Path(data.directory) / MANIFEST_FILE
    tree = json.loads(path.read_text())
    tree["corpus"] = {"source": "pydoc", "path": "", "text_field": "text", "max_bytes": 0}
    path.write_text(json.dumps(tree))
    asked = dataclasses.replace(data, corpus=read_manifest(data.directory).corpus)
    assert not prepare(asked)[1]
    as_version_1(Path(data.directory))
    with pytest.raises(ValueError, match=r"version 1 of the corpus pydoc, now 2, .*--force, or into another directory"):
        prepare(asked)
    pinned = dataclasses.replace(asked, data_hash=read_manifest(data.directory).data_hash)
    check_matches(read_manifest(data.directory), pinned)  # a sweep that was planned with it may be finished


def test_more_shards_than_open_files_are_allowed(tmp_path):
    """A process that may open 64 files (and raise that to 4000) reads 300 shards."""
    data = data_spec(tmp_path, count=40)
    (tmp_path / "many").mkdir()
    build_shards(data, as_path(tmp_path / "many"), shard_tokens=10)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4000));"
        "from mdm_jax.data.store import open_split; s = open_split(sys.argv[1], 'train');"
        "print(len(s), sum(int(s.tokens(i, 1)[0]) for i in range(0, len(s), 10)))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "many")], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    count = int(out.stdout.split()[0])
    assert count > 3000
    assert count == read_manifest(tmp_path / "many").train.tokens


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("MDM_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with in_memory() as store:
        yield store


@pytest.fixture
def remote(bucket, tmp_path):
    """A corpus of random ids in a bucket, with one shard of 12 MiB, and its local twin."""
    write_random_corpus(tmp_path / "local", 6 << 20)
    for file in (tmp_path / "local").iterdir():
        bucket.pipe(f"/bucket/prepared/{file.name}", file.read_bytes())
    return "s3://bucket/prepared", str(tmp_path / "local")


def write_random_corpus(folder, tokens):
    folder.mkdir()
    splits = []
    for name in SPLITS:
        writer = ShardWriter(as_path(folder), name, "uint16")
        writer.add(np.random.default_rng(0).integers(0, 257, tokens, np.int32), tokens)
        splits.append(writer.finish())
    digest = data_hash("cd" * 32, *splits)
    own = (CorpusSpec(), TokenizerSpec(), 0.5, 257, 256, "uint16", "cd" * 32, digest, *splits)
    write_manifest(folder, Manifest(*own))


def blocks_on_disk(folder):
    return {
        file.name: file.stat().st_blocks * 512 for file in Path(folder).iterdir() if not file.name.endswith(".sums")
    }


def test_a_host_copies_what_it_reads_of_a_bucket_and_no_more(remote, bucket, tmp_path):
    there, here = (open_split(folder, "train", verify=False) for folder in remote)
    assert not (tmp_path / "cache").exists()
    far = len(there) - 100
    np.testing.assert_array_equal(there.tokens(far, 100), here.tokens(far, 100))
    (size,) = blocks_on_disk(tmp_path / "cache").values()
    assert 0 < size < 5 << 20
    np.testing.assert_array_equal(whole(there), whole(here))
    bucket.rm("/bucket/prepared", recursive=True)
    manifest = read_manifest(remote[1])
    again = open_split(remote[0], "train", manifest=manifest)
    np.testing.assert_array_equal(whole(again), whole(here), "another process of the host reads the copy alone")


def test_a_damaged_copy_is_mended_and_a_damaged_bucket_refused(remote, bucket, tmp_path):
    expected = whole(open_split(remote[1], "train"))
    store = open_split(remote[0], "train")
    np.testing.assert_array_equal(whole(store), expected)
    (copy,) = blocks_on_disk(tmp_path / "cache")
    for byte in (0, BLOCK_BYTES - 1, 3 * BLOCK_BYTES, len(expected) * 2 - 1):
        flip(tmp_path / "cache" / copy, byte)
    np.testing.assert_array_equal(whole(open_split(remote[0], "train")), expected)
    (tmp_path / "cache" / copy).unlink()
    raw = bytearray(bucket.cat("/bucket/prepared/train-00000.bin"))
    raw[5 * BLOCK_BYTES] ^= 1
    bucket.pipe("/bucket/prepared/train-00000.bin", bytes(raw))
    store = open_split(remote[0], "train")
    np.testing.assert_array_equal(store.tokens(0, 5 * BLOCK_TOKENS), expected[: 5 * BLOCK_TOKENS])
    with pytest.raises(ValueError, match=r"s3://bucket/prepared/train-00000\.bin: shard is corrupt \(bytes 327680"):
        store.tokens(5 * BLOCK_TOKENS, 1)


def test_a_bucket_of_the_first_release_is_copied_whole(tmp_path, bucket):
    data = prepared(tmp_path)
    as_version_1(Path(data.directory))
    for file in Path(data.directory).iterdir():
        bucket.pipe(f"/bucket/old/{file.name}", file.read_bytes())
    np.testing.assert_array_equal(
        whole(open_split("s3://bucket/old", "train")), whole(open_split(data.directory, "train"))
    )
    assert [size for size in blocks_on_disk(tmp_path / "cache").values() if size > 10_000]


def test_a_cache_that_cannot_be_written_is_named(remote, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(OSError, match="cache"):
        open_split(remote[0], "train").tokens(0, 1)
