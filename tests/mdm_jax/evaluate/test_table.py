"""Results of several models in one table: ours and the harness's own, with both errors, and what does not compare."""

import copy
import csv
import io
import json

import numpy as np
import pytest
from command_line import one_line

from mdm_jax.evaluate.table import main, read_tree, results_table, write_tree

OURS = {
    "results": {
        "piqa": {"name": "piqa", "sample_len": 8, "acc,none": 0.625, "acc_stderr,none": 0.1829, "acc_norm,none": 0.5},
        "pages": {"bits_per_byte,none": 1.25, "bits_per_byte_stderr,none": "N/A", "alias": "pages"},
    },
    "n-samples": {"piqa": {"original": 1838, "effective": 8}, "pages": {"original": 3, "effective": 3}},
    "n-shot": {"piqa": 0, "pages": 0},
    "versions": {"piqa": 1.0, "pages": 1.0},
    "higher_is_better": {"piqa": {"acc": True, "acc_norm": True}, "pages": {"bits_per_byte": False}},
    "mdm_jax": {
        "name": "mdm.safetensors",
        "estimators": {
            "piqa": {"method": "left_to_right", "guidance": 0.6, "draws": 128, "max_se": 0.0},
            "pages": {"method": "nelbo", "guidance": 0.0, "draws": 64, "max_se": 0.0},
        },
        "se_mc": {"piqa": {"acc,none": 0.0}, "pages": {"bits_per_byte,none": 0.0125}},
    },
}
GPT2 = {
    "results": {"piqa": {"alias": "piqa", "acc,none": 0.6289, "acc_stderr,none": 0.0113}},
    "n-samples": {"piqa": {"original": 1838, "effective": 1838}},
    "n-shot": {"piqa": 0},
    "versions": {"piqa": 1.0},
    "higher_is_better": {"piqa": {"acc": True}},
    "config": {"model": "hf", "model_args": {"pretrained": "gpt2"}},
    "model_name": "gpt2",
}


def test_ours_and_hugging_faces_stand_side_by_side_with_their_errors():
    lines = results_table([read_tree(OURS, "ours.json"), read_tree(GPT2, "theirs.json")]).splitlines()
    assert lines[0].split() == ["task", "metric", "mdm.safetensors", "gpt2"]
    assert lines[1].split("  ")[-1] == "0.6289 ± 0.0113"
    assert "acc ↑" in lines[1]
    assert "0.6250 ± 0.1829 ± 0.0000" in lines[1]
    assert lines[2].split() == ["piqa", "acc_norm", "↑", "0.5000", "±", "?", "–"]
    assert "bits_per_byte ↓  1.2500 ± ? ± 0.0125" in lines[3]
    assert lines[5:] == [
        "mdm.safetensors: piqa by left_to_right, guidance 0.6, which is no likelihood",
        "mdm.safetensors: pages by nelbo, at most 64 draws",
        "piqa: the columns do not compare: documents: 8 in mdm.safetensors, 1838 in gpt2",
    ]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("n-shot", "piqa"), 5, "examples: 0 in gpt2 (a.json), 5 in gpt2 (b.json)"),
        (("versions", "piqa"), 2.0, "version: 1.0 in gpt2 (a.json), 2.0 in gpt2 (b.json)"),
    ],
)
def test_columns_that_do_not_compare_are_named(place, value, said):
    other = copy.deepcopy(GPT2)
    other[place[0]][place[1]] = value
    assert results_table([read_tree(GPT2, "a.json"), read_tree(GPT2, "b.json")]).count("compare") == 0
    table = results_table([read_tree(GPT2, "a.json"), read_tree(other, "b.json")])
    assert table.endswith(f"piqa: the columns do not compare: {said}")


def test_files_of_one_name_are_told_apart_and_still_compared():
    other = copy.deepcopy(GPT2)
    other["n-shot"]["piqa"] = 5
    lines = results_table([read_tree(GPT2, "a/out.json"), read_tree(other, "b/out.json")]).splitlines()
    assert "gpt2 (a/out.json)  gpt2 (b/out.json)" in lines[0]
    assert lines[-1].startswith("piqa: the columns do not compare: examples: 0 in gpt2 (a/out.json), 5 in")
    assert results_table([[], []]).splitlines()[0].endswith("no metric (1)  no metric (2)")


def test_csv_has_a_line_for_each_metric_of_each_file(tmp_path, capsys):
    paths = []
    for name, tree in (("ours.json", OURS), ("theirs.json", GPT2)):
        (tmp_path / name).write_text(json.dumps(tree))
        paths.append(str(tmp_path / name))
    assert main([*paths, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["model"], row["task"], row["metric"]) for row in rows] == [
        ("mdm.safetensors", "piqa", "acc"),
        ("mdm.safetensors", "piqa", "acc_norm"),
        ("mdm.safetensors", "pages", "bits_per_byte"),
        ("gpt2", "piqa", "acc"),
    ]
    assert (float(rows[0]["value"]), float(rows[0]["se_data"]), float(rows[0]["se_mc"])) == (0.625, 0.1829, 0.0)
    assert (rows[2]["se_data"], rows[2]["draws"], rows[0]["draws"], rows[3]["method"]) == ("", "64", "", "")
    assert main(paths) == 0
    assert capsys.readouterr().out.startswith("task ")


def test_values_of_another_type_are_unknown():
    """A results file may come from anywhere."""
    tree = copy.deepcopy(OURS)
    tree["results"] = {"piqa": {"acc,none": 0.5, "acc_stderr,none": [1], "huge,none": 10**400, "text,none": "x"}}
    tree["n-samples"], tree["n-shot"], tree["versions"] = {"piqa": {"effective": "many"}}, [], {"piqa": "a\nb"}
    tree["higher_is_better"] = {"piqa": {"acc": ["yes"]}}
    tree["mdm_jax"] = {"name": "a\nb", "estimators": {"piqa": {"method": "nelbo", "guidance": "w", "draws": {}}}}
    (metric,) = read_tree(tree, "ours.json")
    assert (metric.value, metric.se_data, metric.se_mc, metric.higher_is_better) == (0.5, None, None, None)
    assert (metric.documents, metric.n_shot, metric.guidance, metric.draws) == (None, None, None, None)
    assert (metric.model, metric.version) == ("a b", "a b")
    assert results_table([[metric]]).splitlines()[1] == "piqa  acc     0.5000 ± ?"


def test_results_with_numpys_numbers_are_written_as_numbers(tmp_path):
    write_tree(str(tmp_path / "out.json"), {"count": np.int64(3), "share": np.float32(0.5), "function": len})
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == {"count": 3, "share": 0.5, "function": "<built-in function len>"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "no results of lm-evaluation-harness: it has no section `results`"),
        ('{"results": [1]}', "it has no section `results`"),
        ('{"results": {"piqa": 1}}', "it has no section `results`"),
    ],
)
def test_a_file_without_results_is_named(tmp_path, capsys, content, said):
    (tmp_path / "bad.json").write_text(content)
    assert said in one_line(main, [str(tmp_path / "bad.json")], capsys)
    assert "must be a JSON file of the harness" in one_line(main, [str(tmp_path / "absent.json")], capsys)
