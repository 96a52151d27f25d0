"""`python -m mdm_jax.sample.report`: its files, going on after an interruption, nats from elsewhere, and its errors."""

import csv
import json
import math
import shutil

import pytest
from command_line import one_line
from json_tokenizers import word_piece
from small_corpus import texts as words_of
from smdm_files import write_both

from mdm_jax import load
from mdm_jax.sample.report import __main__ as command
from mdm_jax.spec import Family

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW = 12
SMALL = ["--n", "4", "--batch", "2", "--tokens", "8", "--samplers", "first_hitting", "--steps", "2", "8"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[Family, str]:
    return write_both(tmp_path_factory.mktemp("models"), ROW)


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    """A report of both families, with the ARM as reference and real text."""
    out = tmp_path_factory.mktemp("report")
    real = out / "real.txt"
    real.write_text("A text that is long enough for some rows of eight tokens, and then for some more of them.")
    words = [files["mdm"], files["arm"], "--reference", files["arm"], "--texts", str(real), *SMALL, "--out"]
    assert command.main([*words, str(out / "found")]) == 0
    return words, out / "found"


def rows_of(folder):
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def texts_of(folder, name):
    (file,) = [path for path in (folder / "texts").glob(f"{name}-*.jsonl") if ".nats-" not in path.name]
    return lines_of(file)


def test_every_setting_has_a_row_with_perplexity_and_entropy(made):
    rows = rows_of(made[1])
    assert [(row["model"], row["sampler"], row["steps"]) for row in rows] == [
        ("real text", "", ""),
        ("mdm", "first_hitting", "2"),
        ("mdm", "first_hitting", "8"),
        ("arm", "ancestral", ""),
    ]
    for row in rows:
        assert float(row["perplexity"]) > 1
        assert float(row["sequence_entropy"]) > 0
        assert float(row["perplexity_se"]) > 0
        assert row["texts"] == "4"
        assert (row["seconds"] == "") == (row["model"] == "real text")
    assert rows[1]["nfe"] <= "2.0" < rows[2]["nfe"]
    assert float(rows[1]["compile_seconds"]) > 0
    assert float(rows[2]["compile_seconds"]) == 0
    assert (made[1] / "quality.svg").read_bytes().startswith(b"<?xml")
    assert (made[1] / "equal_quality.csv").read_text().count("\n") == 2


def test_a_text_is_the_one_that_generate_gives_and_its_nats_are_those_of_the_reference(made, files):
    held = texts_of(made[1], "mdm-first_hitting-8")
    expected = load(files["mdm"]).generate([""], 8, n=4, sampler="first_hitting", steps=8)
    assert [text["text"] for text in held] == [text.text for text in expected]
    assert [tuple(text["ids"]) for text in held] == [text.ids for text in expected]
    assert [text["seed"] for text in held] == [0, 1, 2, 3]
    arm = load(files["arm"])
    targets = [[*text["ids"], *([256] if text["ended"] else [])] for text in held]
    nats = [-one.loglikelihood for one in arm.loglikelihood([([], target) for target in targets])]
    (row,) = [row for row in rows_of(made[1]) if row["steps"] == "8"]
    assert math.log(float(row["perplexity"])) == pytest.approx(sum(nats) / sum(map(len, targets)))


def test_an_arm_that_is_its_own_reference_has_the_nats_that_it_drew(made):
    held = texts_of(made[1], "arm-ancestral")
    (row,) = [row for row in rows_of(made[1]) if row["model"] == "arm"]
    mean = sum(text["own_nats"] for text in held) / sum(text["tokens"] for text in held)
    assert math.log(float(row["perplexity"])) == pytest.approx(mean, rel=1e-4)


def test_after_an_interruption_the_same_command_goes_on(made, tmp_path, monkeypatch, capsys):
    words, whole = made
    out = shutil.copytree(whole, tmp_path / "stopped")
    (last,) = [path for path in (out / "texts").glob("arm-*.jsonl") if ".nats-" not in path.name]
    last.unlink()
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / "texts").glob("mdm-*")}

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mdm_jax.trained.model.Model.generate", ctrl_c)
        assert command.main([*words, str(out)]) == 130
    assert "has 3 of 4 settings, and the same command goes on" in capsys.readouterr().err
    assert len(rows_of(out)) == 3
    assert command.main([*words, str(out)]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "texts").glob("mdm-*")} == stamps
    quality = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows_of(out)]
    assert quality == [{k: v for k, v in row.items() if "seconds" not in k} for row in rows_of(whole)]


def test_a_changed_text_is_refused(made, tmp_path, capsys):
    words, whole = made
    out = shutil.copytree(whole, tmp_path / "edited")
    (file,) = [path for path in (out / "texts").glob("mdm-first_hitting-2-*") if ".nats-" not in path.name]
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 7'))
    assert command.main([*words, str(out)]) == 1
    assert f"{file}, line 2: sha256 is not that of the content" in capsys.readouterr().err


def test_nats_from_elsewhere_give_the_same_table(made, files, tmp_path, capsys):
    words, whole = made
    kept = [line for path in sorted((whole / "texts").glob("*.nats-*")) for line in lines_of(path)]
    given = tmp_path / "nats.jsonl"
    given.write_text("".join(json.dumps(line) + "\n" for line in kept))
    elsewhere = [word for word in words if word not in ("--reference",)]
    elsewhere.remove(files["arm"])  # the model stays, the reference goes
    out = shutil.copytree(whole, tmp_path / "again")
    assert command.main([*elsewhere, str(out), "--nats", str(given)]) == 0
    assert rows_of(out) == rows_of(whole)
    texts = next(path for path in (whole / "texts").glob("arm-*") if ".nats-" not in path.name)
    assert command.main([*elsewhere, str(out), "--nats", str(texts)]) == 1
    assert f'{texts}, line 1: "nats" must be a number from 0' in capsys.readouterr().err
    given.write_text("\n".join(given.read_text().splitlines()[:-1]))
    assert command.main([*elsewhere, str(out), "--nats", str(given)]) == 1
    assert "texts without one" in capsys.readouterr().err


def test_prompts_are_continued_and_texts_of_one_prompt_are_one_unit(files, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "ab"}\n{"prompt": "c"}\n')
    words = [files["arm"], "--n", "4", "--batch", "4", "--prompts", str(prompts)]
    assert command.main([*words, "--out", str(tmp_path / "p")]) == 0
    held = texts_of(tmp_path / "p", "arm-ancestral")
    assert [(text["prompt"], text["unit"]) for text in held] == [("ab", 0), ("c", 1)] * 2
    expected = load(files["arm"]).generate(["ab", "c", "ab", "c"], 10, seed=0)
    assert [text["text"] for text in held] == [text.text for text in expected]


def test_prompts_are_cut_from_real_text(files, tmp_path):
    real = tmp_path / "real.txt"
    real.write_text("abcdefghijklmnopqrstuvwxyz" * 2)
    words = [files["arm"], "--texts", str(real), "--prompt-tokens", "3", "--tokens", "5", "--n", "4", "--batch", "2"]
    assert command.main([*words, "--out", str(tmp_path / "r")]) == 0
    originals = texts_of(tmp_path / "r", "real")
    assert (originals[0]["prompt"], originals[0]["text"]) == ("abc", "defgh")
    held = texts_of(tmp_path / "r", "arm-ancestral")
    assert [text["prompt"] for text in held] == [text["prompt"] for text in originals]
    assert rows_of(tmp_path / "r")[0]["perplexity"] == ""


def test_published_weights_write_with_a_tokenizer_beside_them(reference_data, tmp_path, capsys):
    for name in ("mdm.safetensors", "ar.safetensors", "config.json"):
        shutil.copy(reference_data / "smdm_golden" / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text(word_piece(words_of(300), 90))
    models = [str(tmp_path / "mdm.safetensors"), str(tmp_path / "ar.safetensors")]
    small = ["--n", "2", "--batch", "2", "--tokens", "8", "--samplers", "confidence", "--steps", "4", "--draws", "8"]
    assert command.main([*models, "--reference", models[0], *small, "--out", str(tmp_path / "out")]) == 0
    for row in rows_of(tmp_path / "out"):
        assert 20 < float(row["perplexity"]) < 400
        assert 0 < float(row["sequence_entropy"]) <= math.log(8)
    shown = capsys.readouterr().out
    assert "The reference is an MDM: the perplexity is an upper bound" in shown
    assert "mdm is its own reference" in shown


WRONG = [
    (["--samplers", "gready"], "--samplers = 'gready': must be all, or of ancestral, first_hitting"),
    (["--samplers", "margin:blok=3"], "unknown key blok: did you mean block?"),
    (["--samplers", "margin:3"], "--samplers margin = '3': must be KEY=VALUE"),
    (["--samplers", "margin", "--steps", "9", "--tokens", "8"], "--steps, margin: steps = 9: must be at most 8"),
    (["--tokens", "13"], "--tokens = 13: must be at most 12"),
    (["--n", "5", "--batch", "2"], "--batch = 2: must be a divisor of --n 5"),
    (["--prompt-tokens", "12"], "tokens of the longest prompt = 12: must be at most 11"),
    (["--prompt-tokens", "4"], "--prompt-tokens = 4: must be given with --texts"),
    (["--texts", "absent.txt"], "'absent.txt': no such file"),
    (["--nats", "absent.jsonl", "--reference", "x"], "--nats = 'absent.jsonl': must be absent with --reference"),
    (["--temperature", "-1"], "temperature = -1.0: must be from 0"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_one_line(files, tmp_path, words, said, capsys):
    assert said in one_line(command.main, [files["mdm"], *words, "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out" / "texts").exists()


def test_too_little_real_text_is_refused(files, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("short")
    words = [files["mdm"], "--texts", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out")]
    assert "real text = '0 pieces of 12 tokens': must be at least 64" in one_line(command.main, words, capsys)
