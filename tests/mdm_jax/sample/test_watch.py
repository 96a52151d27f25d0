"""A text while it is written: its steps end in the text that is written unwatched, and the screen shows it whole."""

import subprocess
import sys

import numpy as np
import pytest
from command_line import on_terminal, one_line
from smdm_files import write_both

from mdm_jax import load
from mdm_jax.data.tokenizer import ByteTokenizer
from mdm_jax.sample.__main__ import main
from mdm_jax.spec import Family
from mdm_jax.trained.watching import HIDDEN_TOKEN, Part, row_pieces, visible, watch

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW = 12
V, EOS = 257, 256


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[Family, str]:
    return write_both(tmp_path_factory.mktemp("models"), ROW)


def whole(glimpse) -> str:
    return "".join(text for _, text in glimpse.pieces)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (Family.ARM, {"temperature": 0.7}),
        (Family.MDM, {"sampler": "remask_cap", "bound": 0.4, "steps": 9}),
        (Family.MDM, {"sampler": "threshold", "bound": 0.01, "guidance": 1.0}),
        (Family.MDM, {"sampler": "margin", "block": 3, "steps": 4}),
        (Family.MDM, {"sampler": "confidence", "block": 3, "steps": 6, "cache": "dual"}),
    ],
)
def test_the_last_glimpse_has_the_text_that_is_written_unwatched(files, family, options):
    model = load(files[family])
    expected = model.generate(["ab", "c"], 8, n=2, seed=3, **options)
    glimpses = list(watch(model, ["ab", "c"], 8, n=2, seed=3, **options))
    ends = [glimpse.text for glimpse in glimpses if glimpse.text is not None]
    assert [(end.ids, end.seed, end.nfe, end.tokens) for end in ends] == [
        (text.ids, text.seed, text.nfe, text.tokens) for text in expected
    ]
    assert [end.nats for end in ends] == pytest.approx([text.nats for text in expected], rel=1e-5)
    first = [glimpse for glimpse in glimpses if glimpse.seed == 3]
    assert [glimpse.step for glimpse in first] == list(range(1, len(first) + 1))
    assert (first[0].left > 0, first[-1].left) == (True, 0)
    assert whole(first[-1]) == visible("ab" + expected[0].text)


def test_hidden_tokens_become_new_and_then_old(files):
    glimpses = list(watch(load(files[Family.MDM]), ["a[MASK:4]b"], infill=True, sampler="confidence", steps=4))
    assert [glimpse.left for glimpse in glimpses] == [3, 2, 1, 0]
    for glimpse in glimpses:
        assert glimpse.pieces[0] == (Part.GIVEN, "a")
        assert glimpse.pieces[-1] == (Part.GIVEN, "b")
        assert whole(glimpse).count(HIDDEN_TOKEN) == glimpse.left
        assert any(part is Part.NEW for part, _ in glimpse.pieces)
    assert any(part is Part.OLD for part, _ in glimpses[-1].pieces)


def pieces(ids, new=(), given=()):
    ids = np.array(ids, np.int32)
    here = np.arange(len(ids))
    return row_pieces(ids, np.isin(here, given), np.isin(here, new), V, ByteTokenizer(), EOS)


def test_pieces_of_one_character_belong_to_the_last_of_them():
    """The euro sign has three bytes."""
    euro = list("€".encode())
    assert pieces([97, *euro, 98], new=[2]) == ((Part.OLD, "a"), (Part.OLD, "€b"))
    assert pieces([*euro[:2], V, 98]) == ((Part.OLD, "�"), (Part.HIDDEN, HIDDEN_TOKEN), (Part.OLD, "b"))
    assert pieces([0xFF, 98], new=[1]) == ((Part.OLD, "�"), (Part.NEW, "b"))


def test_a_row_ends_at_a_generated_eos_and_control_characters_are_pictures():
    assert pieces([EOS, 97, EOS, 98], given=[0, 1]) == ((Part.GIVEN, "a"),)
    assert pieces([27, 10, 9, 7, 127]) == ((Part.OLD, "␛\n\t␇␡"),)
    assert pieces([]) == ()


def test_elsewhere_than_on_a_terminal_each_step_is_a_line_without_control_codes(files, tmp_path, capsys):
    out = tmp_path / "texts.jsonl"
    words = [files[Family.MDM], "--prompt", "ab", "--tokens", "4", "--steps", "2", "--sampler", "entropy"]
    assert main([*words, "--watch", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert main(words) == 0
    lines = shown.splitlines()
    assert lines[0].startswith("seed 0 step 1: ab")
    assert lines[0].count(HIDDEN_TOKEN) == 2
    assert lines[1].startswith("seed 0 step 2: ab")
    assert "\x1b" not in shown
    assert capsys.readouterr().out.splitlines()[1:] == lines[3:]
    assert out.read_text().count("\n") == 1


def test_ctrl_c_leaves_the_terminal_with_its_cursor(files):
    words = ["--prompt", "ab", "--tokens", "4", "--n", "500", "--sampler", "entropy", "--watch"]
    command = [sys.executable, "-m", "mdm_jax.sample", files[Family.MDM], *words]
    code, shown = on_terminal(lambda **streams: subprocess.Popen(command, **streams), HIDDEN_TOKEN.encode())
    assert code == 130
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert shown.endswith(b"mdm_jax: interrupted\r\n")


def test_a_mistake_is_one_line_and_nothing_is_shown(files, capsys):
    assert "steps = 9: must be at most 4" in one_line(
        main, [files[Family.MDM], "--prompt", "a", "--tokens", "4", "--steps", "9", "--watch"], capsys
    )
    words = ["--tokens", "20", "--stride", "4", "--watch"]
    assert "--stride = 4: must be absent with --watch" in one_line(main, [files[Family.MDM], *words], capsys)
    assert "infill: family = 'arm': must be mdm" in one_line(
        main, [files[Family.ARM], "--infill", "a[MASK]", "--watch"], capsys
    )
