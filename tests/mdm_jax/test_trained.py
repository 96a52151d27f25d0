"""A trained model in the hand: what `load` finds in a run's folder, its logits, and its NELBO against enumeration."""

import dataclasses
import math
import shutil

import numpy as np
import pytest
from enumerated import log_softmax, nats_by_count
from running import checkpoints, leaves, result
from small_corpus import prepared
from smdm_files import TRUNK, write_random
from tiny_runs import on_mesh

from mdm_jax import load
from mdm_jax.data.corpus import open_corpus
from mdm_jax.files.results import write_result
from mdm_jax.files.storage import as_path
from mdm_jax.interop.smdm.__main__ import main
from mdm_jax.interop.smdm.weights import read_smdm
from mdm_jax.spec import Attention, Family, TokenizerKind, TokenizerSpec, to_json
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import init_state
from mdm_jax.trained.model import Model
from mdm_jax.trained.tokenizer import tokenizer_of

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V = TRUNK.vocab_size


@pytest.fixture(scope="module")
def mdm(tmp_path_factory) -> Model:
    return load(write_random(tmp_path_factory.mktemp("mdm") / "model", Attention.BIDIRECTIONAL, seq_len=3))


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Model:
    return load(write_random(tmp_path_factory.mktemp("arm") / "model", Attention.CAUSAL, seq_len=3))


def arm_nats(model: Model, rows_SL: np.ndarray) -> np.ndarray:
    """The nats of each token, from the logits of the row shifted behind the start token."""
    start_S1 = np.full((len(rows_SL), 1), model.spec.vocab_size)
    log_p_SLV = log_softmax(model.logits(np.concatenate([start_S1, rows_SL[:, :-1]], 1)))
    return -np.take_along_axis(log_p_SLV, rows_SL[..., None], -1)[..., 0]


def any_order_nats(model: Model, row_L: np.ndarray) -> float:
    """The count form's expectation: L times the mean, over sizes K and sets of K masked tokens, of their mean nats."""
    log_p, mask = (lambda rows_SL: log_softmax(model.logits(rows_SL))), model.spec.vocab_size
    return float(nats_by_count(log_p, row_L[None], mask).sum())


def rows_of(model: Model, texts: list[str]) -> list[np.ndarray]:
    ids, _ = model.tokenizer.encode_batch(texts)
    return [ids[i : i + model.seq_len] for i in range(0, len(ids), model.seq_len)]


def test_a_run_is_opened_at_its_newest_whole_checkpoint_and_left_as_it_is(shop, tmp_path):
    spec = shop.spec(Family.MDM)
    folder = shutil.copytree(shop.undisturbed(spec) / spec.run_id, tmp_path / spec.run_id)
    before, newest = checkpoints(tmp_path, spec)[-2:]
    model = load(folder)
    assert (model.run, model.spec, model.step, model.seq_len) == (spec, spec.model, newest, spec.data.seq_len)
    assert repr(model).startswith("<MDM: 1 layers, d_model 16, 2 heads, ffn 32, ")
    assert repr(model).endswith(f"from {folder} at step {newest} of {spec.schedule.steps}>")
    model.export(tmp_path / "exported")
    assert_holds(tmp_path / "exported", leaves(tmp_path, spec))
    file = max((folder / "checkpoints" / str(newest)).rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    held = sorted(folder.rglob("*"))
    assert load(folder).step == before
    assert sorted(folder.rglob("*")) == held


def assert_holds(exported, arrays):
    """The file holds the moving average, bit for bit: it is what a run that keeps one is evaluated by."""
    weights = read_smdm(exported).weights
    held = {name.split(".")[-2]: leaf for name, leaf in arrays.items() if name.startswith("average.")}
    assert weights.keys() == held.keys()
    assert not [name for name, w in weights.items() if w.tobytes() != np.asarray(held[name]).tobytes()]


def test_a_run_over_several_devices_is_opened_on_one(shop, tmp_path):
    """The head was padded to a multiple of the devices that shared it; there is no result.json yet."""
    spec = shop.spec(Family.MDM, mesh_data=2, mesh_model=2)
    spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, data_hash="d" * 64))
    with on_mesh(2, 2):
        state = init_state(spec)
        saved = Checkpoints(as_path(tmp_path / "checkpoints"), Identity(spec.spec_hash, "d" * 64))
        saved.save(3, state)
        saved.close()
    (tmp_path / "spec.json").write_text(to_json(spec) + "\n")
    model = load(tmp_path)
    assert (model.step, state.evaluated.head.shape) == (3, (16, 258))
    model.export(tmp_path / "model")
    np.testing.assert_array_equal(
        read_smdm(tmp_path / "model").weights["head"], np.asarray(state.evaluated.head[...])[:, :257]
    )
    assert np.isfinite(model.logits(TOKENS)).all()


def test_the_logits_of_a_run_give_the_loss_that_it_reported(shop, tmp_path, capsys):
    spec = shop.spec(Family.ARM)
    runs = shop.undisturbed(spec)
    rows_SL = open_corpus(spec.data).evaluation_rows(spec.evaluation.eval_tokens)[:16]
    reported = result(runs, spec).loss
    assert arm_nats(load(runs / spec.run_id), rows_SL).mean() == pytest.approx(reported, rel=1e-5)
    assert main(["export", str(runs / spec.run_id), str(tmp_path / "arm.safetensors")]) == 0
    assert "arm.safetensors: <ARM: " in capsys.readouterr().out
    exported = load(tmp_path / "arm.safetensors")
    np.testing.assert_array_equal(exported.logits(rows_SL), load(runs / spec.run_id).logits(rows_SL))
    load(runs / spec.run_id).export_hf(tmp_path / "folder")
    np.testing.assert_array_equal(load(tmp_path / "folder").logits(rows_SL), load(runs / spec.run_id).logits(rows_SL))
    texts = ["größe λ\n", "a token of noise"]
    assert exported.nelbo(texts) == load(runs / spec.run_id).nelbo(texts)


@pytest.mark.parametrize("texts", [["ab"], ["a", "bcde"], ["ab", "cde", "f"]], ids=["one row", "with an end", "more"])
def test_the_nelbo_of_an_arm_is_its_likelihood(arm, texts):
    measured = arm.nelbo(texts)
    expected = sum(arm_nats(arm, row_L[None]).sum() for row_L in rows_of(arm, texts))
    assert measured.nats == pytest.approx(expected, rel=1e-5)
    assert (measured.se_mc, measured.tokens) == (0.0, sum(map(len, texts)) + len(texts))
    assert measured.text_bytes == sum(map(len, texts))
    assert measured.bits_per_byte == pytest.approx(expected / math.log(2) / measured.text_bytes, rel=1e-5)


def test_many_rows_are_scored_in_batches(arm, monkeypatch):
    texts = ["ab", "ba", "bb", "aa", "cc"]
    expected = arm.nelbo(texts).nats
    monkeypatch.setattr("mdm_jax.evaluate.stream.BATCH_TOKENS", 6)
    assert arm.nelbo(texts).nats == pytest.approx(expected, rel=1e-6)


def test_the_nelbo_of_an_mdm_agrees_with_all_masks_within_its_error(mdm):
    texts = ["ab", "cde"]  # three rows of 3, 3 and 1 tokens
    measured = mdm.nelbo(texts, draws=300)
    expected = sum(any_order_nats(mdm, row_L) for row_L in rows_of(mdm, texts))
    assert 0 < measured.se_mc < 0.05 * expected
    assert abs(measured.nats - expected) < 3 * measured.se_mc


def test_guidance_moves_the_logits_away_from_those_without_the_prompt(mdm):
    tokens_BL, prompt_BL = np.array([[1, 2, V]]), np.array([[True, False, False]])
    with_BLV, without_BLV = mdm.logits(tokens_BL), mdm.logits(np.array([[V, 2, V]]))
    guided_BLV = mdm.logits(tokens_BL, guidance=0.5, prompt_mask_BL=prompt_BL)
    np.testing.assert_allclose(guided_BLV, 1.5 * with_BLV - 0.5 * without_BLV, atol=1e-5)
    np.testing.assert_array_equal(mdm.logits(tokens_BL, 0.0, prompt_BL), with_BLV)


TOKENS = np.array([[1, 2, 3]])
BAD_CALLS = [
    (lambda mdm, arm: mdm.logits(TOKENS + V), r"tokens_BL = '258 to 260': must be ids from 0 to 257"),
    (lambda mdm, arm: mdm.logits(TOKENS[:, :0]), r"tokens_BL = 'int64 \[1, 0\]'"),
    (lambda mdm, arm: mdm.logits(TOKENS, 0.5), r"prompt_mask_BL = None: must be bool \[1, 3\]"),
    (lambda mdm, arm: arm.logits(TOKENS, 0.5, TOKENS > 0), "guidance = 0.5: must be 0 for an ARM"),
    (lambda mdm, arm: mdm.logits(TOKENS, 101.0, TOKENS > 0), "guidance = 101.0: must be a number from -100 to 100"),
    (lambda mdm, arm: mdm.nelbo([]), "texts"),
    (lambda mdm, arm: mdm.nelbo(["a"], draws=1), "draws = 1: must be from 2"),
]


@pytest.mark.parametrize(("call", "said"), BAD_CALLS)
def test_a_bad_argument_is_named(mdm, arm, call, said):
    with pytest.raises(ValueError, match=said):
        call(mdm, arm)


def test_an_arm_without_a_start_token_predicts_no_first_token(tmp_path):
    model = load(write_random(tmp_path / "model", Attention.CAUSAL, has_start=False))
    assert model.logits(TOKENS).shape == (1, 3, V)
    with pytest.raises(ValueError, match="ids from 0 to 256"):
        model.logits(TOKENS * 0 + V)


def test_an_arm_without_a_start_token_reads_eos_in_its_place(tmp_path):
    """A row that begins with EOS (256) gives the predictions of the whole row, one place later."""
    model = load(write_random(tmp_path / "model", Attention.CAUSAL, seq_len=3, has_start=False))
    rows_SL = np.array([[97, 98, 256], [99, 256, 98]])
    log_p_SLV = log_softmax(model.logits(np.concatenate([np.full((2, 1), 256), rows_SL[:, :-1]], 1)))
    expected_SL = -np.take_along_axis(log_p_SLV, rows_SL[..., None], -1)[..., 0]
    assert model.nelbo(["ab"]).nats == pytest.approx(expected_SL[0].sum(), rel=1e-5)
    found = model.loglikelihood([([], rows_SL[0]), (rows_SL[1, :1], rows_SL[1, 1:])])
    assert [one.loglikelihood for one in found] == pytest.approx([-expected_SL[0].sum(), -expected_SL[1, 1:].sum()])
    model.export(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_a_folder_that_is_no_run_is_named(shop, tmp_path):
    spec = shop.spec(Family.ARM)
    with pytest.raises(ValueError, match=r"no run's folder: it has no spec\.json"):
        load(tmp_path)
    whole = shop.undisturbed(spec) / spec.run_id
    shutil.copyfile(whole / "spec.json", tmp_path / "spec.json")
    shutil.copyfile(whole / "result.json", tmp_path / "result.json")
    with pytest.raises(ValueError, match=r"no whole checkpoint \(there is none\): train the run first"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "absent")


def test_a_file_whose_tokenizer_is_not_beside_it_says_so(reference_data, tmp_path):
    model = load(reference_data / "smdm_golden" / "mdm.safetensors")
    with pytest.raises(
        ValueError, match=r"needs its tokenizer: put the sentencepiece model beside it, as tokenizer\.model"
    ):
        model.nelbo(["a"])


def test_the_tokenizer_of_a_run_is_that_of_its_prepared_data(shop, tmp_path):
    """The run's spec is made to name sentencepiece: no run is trained for it, and only the tokenizer is asked for."""
    kind = TokenizerSpec(TokenizerKind.SENTENCEPIECE, 320)
    data = prepared(tmp_path, tokenizer=kind)
    spec = shop.spec(Family.ARM)
    run = dataclasses.replace(spec, model=dataclasses.replace(spec.model, vocab_size=320), data=data)
    trained = dataclasses.replace(result(shop.undisturbed(spec), spec), tokenizer_hash=open_corpus(data).tokenizer.hash)
    write_result(tmp_path / "result.json", trained)
    assert tokenizer_of(run, as_path(tmp_path)).vocab_size == 320
    write_result(tmp_path / "result.json", dataclasses.replace(trained, tokenizer_hash="0" * 64))
    with pytest.raises(ValueError, match="with which the run was trained: prepare that data again"):
        tokenizer_of(run, as_path(tmp_path))
    shutil.rmtree(data.directory)
    with pytest.raises(ValueError, match="the run's prepared data is not there"):
        tokenizer_of(run, as_path(tmp_path))
