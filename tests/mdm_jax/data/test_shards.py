"""Shards and their manifest: content-addressed, verified before use, on a disk and in a bucket; damage is named."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bucket import in_memory
from small_corpus import data_spec, flags, prepared

from mdm_jax.data.build import build_shards
from mdm_jax.data.manifest import check_matches, read_manifest
from mdm_jax.data.prepare import main
from mdm_jax.data.shards import ShardWriter
from mdm_jax.data.store import open_split
from mdm_jax.files.storage import as_path
from mdm_jax.spec import CorpusSpec, TokenizerKind, TokenizerSpec


def test_the_data_hash_is_of_the_content_and_not_of_the_place(tmp_path):
    hashes = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        hashes.add(read_manifest(prepared(tmp_path / name).directory).data_hash)
    assert len(hashes) == 1
    (tmp_path / "c").mkdir()
    assert read_manifest(prepared(tmp_path / "c", count=301).directory).data_hash not in hashes


def test_tokens_run_over_many_shards_as_over_one(tmp_path):
    data = data_spec(tmp_path, count=40)
    folders = {size: tmp_path / f"shards-{size}" for size in (1 << 20, 100, 7)}
    for size, folder in folders.items():
        folder.mkdir()
        build_shards(data, as_path(folder), shard_tokens=size)
    whole = open_split(folders[1 << 20], "validation")
    expected = whole.tokens(0, len(whole))
    for size in (100, 7):
        store = open_split(folders[size], "validation")
        assert len(read_manifest(folders[size]).validation.shards) == -(-len(whole) // size)
        assert len(store) == len(whole)
        np.testing.assert_array_equal(store.tokens(0, len(store)), expected)
        for start, length in ((0, 1), (size - 1, 2), (size, size), (3, 5 * size), (len(store) - 1, 1)):
            np.testing.assert_array_equal(store.tokens(start, length), expected[start : start + length])
        for start, length in ((-1, 2), (0, 0), (len(store), 1), (0, len(store) + 1)):
            with pytest.raises(ValueError, match=f"the split has {len(store)}"):
                store.tokens(start, length)


def test_wide_vocabularies_are_stored_in_32_bits(tmp_path):
    writer = ShardWriter(as_path(tmp_path), "train", "uint32")
    writer.add(np.array([70_000, 1], np.int32), 3)
    (shard,) = writer.finish().shards
    assert shard.bytes == 8
    assert np.fromfile(tmp_path / shard.file, "<u4").tolist() == [70_000, 1]


def damage(data, file, change):
    path = Path(data.directory) / file
    if change == "absent":
        path.unlink()
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:-2])
    elif change == "longer":
        path.write_bytes(path.read_bytes() + b"\0\0")
    else:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 4
        path.write_bytes(raw)


@pytest.mark.parametrize("change", ["absent", "truncated", "longer", "flipped"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_damaged_shard_is_named(tmp_path, capsys, split, change):
    data = prepared(tmp_path)
    file = f"{split}-00000.bin"
    damage(data, file, change)
    with pytest.raises(ValueError, match=rf"{file}: shard "):
        open_split(data.directory, split, verify=True)
    assert main(flags(data, "--verify")) == 1
    assert f"{file}: shard " in capsys.readouterr().err
    if change == "flipped":
        store = open_split(data.directory, split, verify=False)
        with pytest.raises(ValueError, match=rf"{file}: shard is corrupt"):
            store.tokens(0, len(store))
    else:
        assert main(flags(data)) == 1, "sizes are checked without --verify too"
    assert main(flags(data, "--force")) == 0
    open_split(data.directory, split, verify=True)


def edit(data, change):
    path = Path(data.directory) / "manifest.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def shard_of(tree):
    return tree["train"]["shards"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: shard_of(t).update(file="../corpus.jsonl"), "must stay inside"),
        (lambda t: shard_of(t).update(file="/etc/passwd"), "must stay inside"),
        (lambda t: shard_of(t).update(file="gs://bucket/shard.bin"), "must stay inside"),
        (lambda t: shard_of(t).update(file=t["validation"]["shards"][0]["file"]), "different files"),
        (lambda t: shard_of(t).update(sha256="abc"), "64 hex digits"),
        (lambda t: shard_of(t).update(bytes=1 << 60), "as its tokens take"),
        (lambda t: shard_of(t).update(tokens=1 << 60, bytes=1 << 61), "the tokens of the shards|tokens = "),
        (lambda t: shard_of(t).update(sha256="0" * 64), "the hash of the shards"),
        (lambda t: t.update(dtype="float64"), "dtype = 'float64': must be one of uint16, uint32"),
        (lambda t: t.update(vocab_size=1 << 20), "at most 65536 ids for uint16"),
        (lambda t: t.update(eos_id=257), "eos_id = 257: must be below vocab_size"),
        (lambda t: t.update(schema_version=3), "schema_version = 3: must be 1 or 2"),
        (lambda t: shard_of(t).update(sums_sha256="abc"), "64 hex digits"),
        (lambda t: t.update(vocab=3), "unknown key vocab: did you mean vocab_size"),
        (lambda t: t.pop("eos_id"), "eos_id"),
        (lambda t: t["train"].update(shards=[]), "tokens"),
        (lambda t: t["corpus"].update(source="web"), "corpus.source"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(tmp_path, change, message):
    data = prepared(tmp_path)
    edit(data, change)
    with pytest.raises(ValueError, match=rf"manifest\.json: not a manifest \(.*({message})"):
        read_manifest(data.directory)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_manifest_is_named(tmp_path, raw):
    (tmp_path / "manifest.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match=r"manifest\.json: no such file: prepare the corpus"):
        read_manifest(tmp_path / "absent")


def test_a_huge_shard_is_refused_before_it_is_read(tmp_path):
    """A sparse file of 2^40 bytes where the manifest says a few: the size alone must stop it."""
    data = prepared(tmp_path)
    with (Path(data.directory) / "train-00000.bin").open("wb") as file:
        file.truncate(1 << 40)
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=r"train-00000\.bin: shard has 1099511627776 bytes"):
        open_split(data.directory, "train")
    assert time.perf_counter() - begun < 5


def test_ids_beyond_the_vocabulary_are_found(tmp_path):
    data = data_spec(tmp_path)
    folder = tmp_path / "built"
    folder.mkdir()
    manifest = build_shards(data, as_path(folder))
    small = dataclasses.replace(manifest, vocab_size=200, eos_id=0)
    with pytest.raises(ValueError, match=r"train-00000\.bin: token id 256: must be below the vocabulary's 200"):
        open_split(folder, "train", manifest=small).tokens(0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": CorpusSpec()}, r"another data\.corpus\.source \('jsonl', not 'pydoc'\)"),
        ({"validation_fraction": 0.3}, r"another data\.validation_fraction \(0\.2, not 0\.3\)"),
        ({"tokenizer": TokenizerSpec(TokenizerKind.SENTENCEPIECE, 300)}, r"another data\.tokenizer\.kind"),
        ({"data_hash": "1" * 64}, "is not the planned 111111111111: the corpus changed"),
    ],
)
def test_a_run_that_asks_for_other_data_is_told_the_difference(tmp_path, changes, message):
    data = prepared(tmp_path)
    check_matches(read_manifest(data.directory), dataclasses.replace(data, seq_len=32, directory="elsewhere"))
    with pytest.raises(ValueError, match=message):
        check_matches(read_manifest(data.directory), dataclasses.replace(data, **changes))


def test_a_vocabulary_that_does_not_match_is_said(tmp_path):
    data = prepared(tmp_path)
    other = dataclasses.replace(read_manifest(data.directory), vocab_size=300)
    with pytest.raises(ValueError, match=r"has 300 ids: set data\.tokenizer\.vocab_size and model\.vocab_size"):
        check_matches(other, data)


def test_the_manifest_needs_no_jax_and_no_numpy():
    code = "import sys; import mdm_jax.data.manifest; assert not {'jax', 'grain', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("MDM_JAX_CACHE", str(tmp_path / "cache"))
    with in_memory() as store:
        yield store


def test_shards_in_an_object_store_are_copied_once_and_verified(tmp_path, monkeypatch, bucket):
    monkeypatch.chdir(tmp_path)
    data = data_spec(tmp_path, directory="s3://bucket/prepared")
    assert main(flags(data)) == 0
    assert main(flags(data)) == 0
    assert sorted(bucket.ls("/bucket/prepared", detail=False))[0].endswith("manifest.json")
    local = prepared(tmp_path)
    for split in ("train", "validation"):
        there, here = open_split(data.directory, split), open_split(local.directory, split)
        np.testing.assert_array_equal(there.tokens(0, len(there)), here.tokens(0, len(here)))
    bucket.rm("/bucket/prepared/train-00000.bin")
    assert open_split(data.directory, "train").tokens(0, 10) is not None, "the copy is used"
    (copy,) = [file for file in (tmp_path / "cache").iterdir() if file.stat().st_size > 20_000]
    copy.write_bytes(copy.read_bytes()[::-1])
    with pytest.raises(ValueError, match="shard absent"):
        open_split(data.directory, "train").tokens(0, 10)
    copy.unlink()
    with pytest.raises(ValueError, match="shard absent"):
        open_split(data.directory, "train")
