"""Losses on slices of time: closed forms, chunks that are kept, settings with several seeds, and the command."""

import csv
import dataclasses
import datetime
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from json_tokenizers import word_piece
from small_corpus import texts as documents
from smdm_files import TRUNK, random_weights

from mdm_jax import load
from mdm_jax.files.storage import as_path
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, Family, Likelihood
from mdm_jax.tasks.temporal import scoring
from mdm_jax.tasks.temporal.__main__ import main
from mdm_jax.tasks.temporal.dated import Dated
from mdm_jax.tasks.temporal.scoring import SliceNats, score_slices
from mdm_jax.tasks.temporal.settings import Scored, cluster_sums, clusters_of, settings_of

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SEQ_LEN = 8
DAY = datetime.date(2016, 1, 1)
SLICES = [
    [Dated("0123456", DAY, "a"), Dated("abcdefg", DAY, "b")],
    [Dated("ABCDEFG", DAY, "b"), Dated("zyxwvut", DAY, "c"), Dated("aaaaaaa", DAY, "c")],
]
"""Each text fills a row of bytes, with EOS."""


def write_model(path: Path, attention: Attention, head_scale: float = 1.0) -> str:
    spec = dataclasses.replace(TRUNK, n_layers=1, d_model=8, d_ffn=8, attention=attention)
    weights = random_weights(spec)
    weights["head"] *= head_scale
    write_smdm(path, weights, spec, SEQ_LEN, True)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    arm, mdm = Attention.CAUSAL, Attention.BIDIRECTIONAL
    made = {"arm": write_model(folder / "arm", arm), "mdm": write_model(folder / "mdm", mdm)}
    made["flat arm"] = write_model(folder / "flat_arm", arm, 0.0)
    return made | {"flat mdm": write_model(folder / "flat_mdm", mdm, 0.0)}


@pytest.mark.parametrize(("name", "method"), [("arm", Likelihood.NELBO), ("mdm", Likelihood.LEFT_TO_RIGHT)])
def test_texts_that_fill_rows_have_the_nats_that_they_have_alone(files, tmp_path, name, method):
    model = load(files[name])
    found = score_slices(model, SLICES, method, 2, as_path(tmp_path))
    for texts, part in zip(SLICES, found, strict=True):
        alone = [model.text_loss([text.text], method).nats for text in texts]
        np.testing.assert_allclose(part.nats_D, alone, rtol=1e-5)
        assert part.totals_R == pytest.approx([sum(alone)], rel=1e-5)
        assert (part.se_mc, part.tokens) == (0, SEQ_LEN * len(texts))


def test_filler_at_the_end_of_a_slice_is_not_counted(files, tmp_path):
    """Under a uniform model, each token has log V nats, whatever the lengths of the texts."""
    slices = [[Dated(text, DAY) for text in documents(5, seed)] for seed in range(3)]
    for name in ("flat arm", "flat mdm"):
        found = score_slices(load(files[name]), slices, Likelihood.NELBO, 2, as_path(tmp_path))
        for texts, part in zip(slices, found, strict=True):
            tokens = np.array([len(text.text.encode()) + 1 for text in texts])
            np.testing.assert_allclose(part.nats_D, tokens * math.log(257), rtol=1e-5)
            assert part.tokens == tokens.sum()


def test_an_interrupted_evaluation_goes_on(files, tmp_path, monkeypatch):
    """The chunks that are kept are used: adding 1 nat a row to one of them shows in the result. A cut one is not."""
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 16)
    monkeypatch.setattr(scoring, "CHUNK_BATCHES", 1)
    model, folder = load(files["mdm"]), as_path(tmp_path)

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    whole = score_slices(model, SLICES, Likelihood.NELBO, 4, folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        score_slices(model, SLICES, Likelihood.NELBO, 4, folder, stop)
    kept = sorted(tmp_path.glob("*.npy"))
    assert len(kept) == 2
    shares = list[float]()
    again = score_slices(model, SLICES, Likelihood.NELBO, 4, folder, shares.append)
    assert shares == pytest.approx([0.4, 0.8, 1.0])
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one.totals_R, other.totals_R)
    with kept[0].open("wb") as file:
        np.save(file, np.load(whole_file(tmp_path, kept[0])) + 1)
    kept[1].write_bytes(kept[1].read_bytes()[:-8])
    changed = score_slices(model, SLICES, Likelihood.NELBO, 4, folder)
    assert sum(part.nats_D.sum() for part in changed) == pytest.approx(sum(part.nats_D.sum() for part in whole) + 2)
    other_draws = score_slices(model, SLICES, Likelihood.NELBO, 8, folder)
    assert len(other_draws[0].totals_R) == 8


def whole_file(folder: Path, file: Path) -> Path:
    return folder / "whole" / file.name


def nats(value: float, texts: list[Dated]) -> SliceNats:
    return SliceNats(np.full(len(texts), value), np.array([value * len(texts)]), 8 * len(texts))


def test_runs_that_differ_in_the_seed_are_one_setting():
    models = [
        Scored(f"runs/{name}", setting, "MDM 1x8", Family.MDM, seed, tuple(nats(value, own) for own in SLICES))
        for name, setting, seed, value in [("a", "x", 0, 1.0), ("b", "y", 0, 3.0), ("c", "x", 1, 2.0)]
    ]
    clusters = clusters_of(SLICES, 8.0)
    found = settings_of(models, [cluster_sums([part.nats_D for part in one.slices], clusters) for one in models])
    assert [one.name for one in found] == ["MDM 1x8 (a)", "MDM 1x8 (b)"]
    np.testing.assert_array_equal(found[0].nats_NGS[0], [[1, 0], [1, 1], [0, 2]])
    np.testing.assert_array_equal(found[0].nats_NGS[1], [[2, 0], [2, 2], [0, 4]])


def test_texts_without_groups_are_in_blocks_of_their_slice():
    """A block has the text of at least four rows, and no block is in two slices."""
    slices = [[dataclasses.replace(text, group="") for text in own * 4] for own in SLICES]
    clusters = clusters_of(slices, 7.0)
    assert [own.tolist() for own in clusters] == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4 + [4] * 4]
    sums = cluster_sums([np.ones(8), np.ones(12)], clusters)
    np.testing.assert_array_equal(sums, [[4, 0], [4, 0], [0, 4], [0, 4], [0, 4]])


def test_many_groups_are_merged_in_the_order_of_their_names():
    texts = [Dated("a", DAY, f"g{i:05d}") for i in range(3 * 4096)]
    (numbers,) = clusters_of([texts], 7.0)
    np.testing.assert_array_equal(numbers, np.arange(3 * 4096) // 3)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> str:
    """Texts of one length from 2012 to 2019, of which those before 2016 are for training and for distance 0."""
    folder = tmp_path_factory.mktemp("split")
    days = [datetime.date(2012 + i % 8, 1 + i // 8 % 12, 1).isoformat() for i in range(240)]
    records = [{"text": f"{i * 7919 % 10**7:07d}", "date": day, "site": f"s{i % 11}"} for i, day in enumerate(days)]
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    flags = ["--until", "2016-01-01", "--held-out", "0.4", "--group-field", "site"]
    assert main(["split", str(folder / "a.jsonl"), "--out", str(folder / "out"), *flags]) == 0
    return str(folder / "out")


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_uniform_models_have_no_shift_in_time(files, split, tmp_path, capsys):
    """Their loss is log(257) for each of 8 tokens of 7 bytes, on all slices; slopes and differences are 0."""
    words = [files["flat mdm"], files["flat arm"], "--slices", split, "--out", str(tmp_path / "out"), "--draws", "2"]
    assert main(["evaluate", *words, "--bootstrap", "50"]) == 0
    losses, slopes = table(tmp_path / "out" / "losses.csv"), table(tmp_path / "out" / "slopes.csv")
    assert len(losses) == 2 * len(json.loads((Path(split) / "slices.json").read_text())["slices"])
    for row in losses:
        assert float(row["nats_per_byte"]) == pytest.approx(8 / 7 * math.log(257), rel=1e-5)
        assert float(row["bits_per_byte"]) == pytest.approx(8 / 7 * math.log2(257), rel=1e-5)
        assert float(row["se_mc"]) < 1e-6
    assert {row["likelihood"] for row in losses} == {"nelbo", "nll"}
    assert {row["setting"] for row in slopes} == {"MDM flat_mdm", "ARM flat_arm", "MDM flat_mdm - ARM flat_arm"}
    numbers = [float(row["value"]) for row in slopes if "loss" not in row["statistic"]]
    assert len(numbers) == 18
    assert max(map(abs, numbers)) < 1e-3
    out, said = capsys.readouterr()
    assert "95% intervals over 11 groups" in out
    assert "2 settings with one seed" in out
    assert said.count("\n") == 2
    assert (tmp_path / "out" / "shift.svg").read_text().startswith("<?xml")


def test_a_run_and_released_weights_take_the_same_command(files, split, whole, reference_data, tmp_path, capsys):
    """The golden weights have a vocabulary of 96, and a tokenizer is put beside them."""
    golden = tmp_path / "golden"
    golden.mkdir()
    for name in ("mdm.safetensors", "config.json"):
        shutil.copy(reference_data / "smdm_golden" / name, golden / name)
    (golden / "tokenizer.json").write_text(word_piece(documents(300), 96))
    run = next(path for path in whole.iterdir() if path.name.startswith("arm-"))
    load(files["mdm"]).export_hf(tmp_path / "hf", tokenizer=False)
    words = [str(golden / "mdm.safetensors"), str(run), str(tmp_path / "hf")]
    flags = ["--slices", split, "--out", str(tmp_path / "out"), "--draws", "2", "--bootstrap", "20"]
    assert main(["evaluate", *words, *flags]) == 0
    losses = table(tmp_path / "out" / "losses.csv")
    assert {row["setting"] for row in losses} == {"MDM mdm.safetensors", "ARM 1x16 12 steps", "MDM hf"}
    assert all(float(row["nats_per_byte"]) > 0 for row in losses)
    assert "MDM minus ARM" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--draws", "1"], "--draws = 1: must be"),
        (["--bootstrap", "0"], "n = 0"),
        (["--base-years", "0.01"], "--base-years = 0.01: must be at least 0."),
        (["--base-years", "nan"], "--base-years = nan: must be above 0"),
        (["--slices", "nowhere"], "--slices = 'nowhere': must be the folder that"),
        (["--likelihood", "exact"], "invalid choice: 'exact'"),
    ],
)
def test_bad_input_of_evaluate_is_one_line(files, split, tmp_path, capsys, flags, message):
    words = ["evaluate", files["arm"], "--slices", split, "--out", str(tmp_path / "out"), *flags]
    assert message in one_line(main, words, capsys)


def test_weights_without_a_tokenizer_are_refused(split, reference_data, tmp_path, capsys):
    golden = str(reference_data / "smdm_golden" / "mdm.safetensors")
    said = one_line(main, ["evaluate", golden, "--slices", split, "--out", str(tmp_path)], capsys)
    assert "smdm_golden/mdm.safetensors" in said
    assert "needs its tokenizer" in said


def test_a_damaged_description_is_refused(files, split, tmp_path, capsys):
    shutil.copytree(split, tmp_path / "s")
    path = tmp_path / "s" / "slices.json"
    path.write_text(path.read_text().replace('"known_groups": false', '"known_groups": true'))
    words = ["evaluate", files["arm"], "--slices", str(tmp_path / "s"), "--out", str(tmp_path / "out")]
    assert "slices.json: not a split's description" in one_line(main, words, capsys)
