"""A changed bit of a plan line, a spec.json or a result.json is refused, and files from before the seals still read."""

import dataclasses
import json
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from isoflop.planfile import read_plan, write_plan
from mdm_jax.files.results import RunResult, Status, read_result, result_of, write_result
from mdm_jax.files.sealed_json import Damaged, Newer, seal, unseal
from mdm_jax.main import main
from mdm_jax.spec import CellSpec, Family, RunSpec, from_json, pair, to_json

FLIPS = 400
CELL = CellSpec(budget=1e12, size="2x64", group="fixed LR")
RUN = RunSpec(cell=CELL, seed=7)
ROW = result_of(RUN, Status.OK, loss=2.5, loss_se_mc=0.01, data_hash="ab" * 32, device="cpu", wall_seconds=12.5)


def flipped(raw: bytes) -> Iterator[bytes]:
    """The bytes with one bit changed, at random places."""
    rng = random.Random(8)
    for bit in rng.sample(range(8 * len(raw)), FLIPS):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_a_flipped_bit_of_a_result_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_result(path, ROW)
    refused = []
    for raw in flipped(path.read_bytes()):
        path.write_bytes(raw)
        try:
            assert read_result(path) == ROW, raw
        except ValueError as error:
            refused.append(str(error))
    assert all(str(path) in said for said in refused)
    assert len(refused) > 0.9 * FLIPS  # the others are blanks


def test_a_flipped_bit_of_a_plan_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    runs = (RUN, pair(RUN, Family.ARM))
    write_plan(tmp_path, runs)
    path, refused = tmp_path / "plan.jsonl", []
    for raw in flipped(path.read_bytes()):
        path.write_bytes(raw)
        try:
            assert read_plan(tmp_path) == runs, raw
        except ValueError as error:
            refused.append(str(error))
    assert all(re.search(r"plan\.jsonl line [12]: .*isoflop\.plan command again", said) for said in refused)
    assert len(refused) > 0.9 * FLIPS


def test_a_flipped_bit_of_a_spec_is_refused_or_changes_nothing() -> None:
    for raw in flipped((to_json(RUN) + "\n").encode()):
        try:
            assert from_json(raw.decode(errors="replace")) == RUN, raw
        except ValueError:
            continue


def test_no_flip_makes_an_unsealed_file_of_a_sealed_one() -> None:
    """Every flip of what decides whether a seal is needed: the key, the version's key, the version."""
    text = json.dumps(seal({"schema_version": 3, "loss": 2.5}))
    for at in [*range(text.index('"sha256"'), len(text)), *range(text.index("3") + 1)]:
        for bit in range(8):
            raw = bytearray(text.encode())
            raw[at] ^= 1 << bit
            try:
                assert unseal(bytes(raw), since=3) == {"schema_version": 3, "loss": 2.5}
            except Damaged:
                continue


def test_blanks_and_the_order_of_keys_do_not_break_a_seal() -> None:
    tree = {"schema_version": 3, "a": 0.1, "b": [None, "ü", 1e-05]}
    backwards = dict(reversed(seal(tree).items()))
    assert unseal(json.dumps(backwards, indent=2, ensure_ascii=False), since=3) == tree


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree.pop("sha256"), "no sha256, which all of schema_version 4 have"),
        (lambda tree: tree.update(schema_version=2), "sha256 is not that of the content"),
        (lambda tree: tree.update(sha256=None), "sha256 is not that of the content"),
        (lambda tree: tree.update(loss=float("nan")), "sha256 is not that of the content"),
    ],
)
def test_a_result_edited_by_hand_is_refused(tmp_path: Path, change, said: str) -> None:
    path = tmp_path / "result.json"
    write_result(path, ROW)
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=said):
        read_result(path)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "9" * 5000, '{"a": ' + "9" * 5000 + "}", "[1]", "", b"\xff{}"])
def test_what_is_no_object_is_damaged(text: str | bytes) -> None:
    with pytest.raises(Damaged, match="not a JSON object"):
        unseal(text, since=3)


def test_files_from_before_the_seals_still_read(tmp_path: Path) -> None:
    tree = dataclasses.asdict(ROW) | {"schema_version": 2}
    (tmp_path / "result.json").write_text(json.dumps(tree))
    old = read_result(tmp_path / "result.json")
    assert old == dataclasses.replace(ROW, schema_version=2)
    line = {key: value for key, value in json.loads(to_json(RUN)).items() if key != "sha256"} | {"schema_version": 1}
    (tmp_path / "plan.jsonl").write_text(json.dumps(line) + "\n")
    assert read_plan(tmp_path) == (RUN,)
    write_result(tmp_path / "result.json", old)  # as the runner does to count an attempt
    assert "sha256" in json.loads((tmp_path / "result.json").read_text())
    assert read_result(tmp_path / "result.json") == ROW


def test_a_newer_result_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(seal(dataclasses.asdict(ROW) | {"schema_version": 5, "invented_later": 1})))
    with pytest.raises(Newer, match=r"result\.json: schema_version = 5, and this mdm-jax knows 4: update it"):
        read_result(path)


def test_the_seal_is_no_column() -> None:
    assert "sha256" not in RunResult.columns()


def test_a_lone_run_keeps_a_damaged_result_aside(tmp_path: Path, capfd) -> None:
    absent = dataclasses.replace(RUN, data=dataclasses.replace(RUN.data, directory=str(tmp_path / "no_corpus")))
    write_plan(tmp_path, [absent])
    path = tmp_path / "runs" / RUN.run_id / "result.json"
    write_result(path, ROW)
    wrong = path.read_bytes().replace(b'"loss": 2.5', b'"loss": 2.4')
    path.write_bytes(wrong)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--plan", str(tmp_path / "plan.jsonl"), "--run-id", RUN.run_id]) == 1  # there is no corpus
    finally:
        signal.signal(signal.SIGTERM, before)
    assert path.with_name("result.json.damaged-1").read_bytes() == wrong
    assert f"{path}: not a run's result (sha256 is not that of the content" in capfd.readouterr().err
    assert read_result(path).status is Status.FAILED
