"""An exported folder in transformers itself: logits, tokenizer, generation, and what transformers saves."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from json_tokenizers import byte_level, llama, word_piece
from small_corpus import texts
from smdm_files import TRUNK, random_weights, write_random

from mdm_jax import load
from mdm_jax.interop.hf.folder import write_hf
from mdm_jax.interop.model_file import ModelFile
from mdm_jax.spec import Attention

SIDE = Path(__file__).resolve().parents[3] / "benchmarks" / "transformers_side.py"
TEXTS = np.array(["", "größe λ 数 😀\t x", "  two  spaces \n", "<|endoftext|> <|start|> <|mask|>"])


@pytest.fixture(scope="module")
def python() -> str:
    """The Python that has torch and transformers: MDM_TRANSFORMERS_PYTHON, or this one."""
    named = os.environ.get("MDM_TRANSFORMERS_PYTHON")
    if named or (importlib.util.find_spec("transformers") and importlib.util.find_spec("torch")):
        return named or sys.executable
    pytest.skip("needs torch and transformers: name a Python that has them in MDM_TRANSFORMERS_PYTHON")


def by_transformers(place, python, inputs_BL, samples):
    """What transformers computes from `place / "folder"`; it saves the model to `place / "saved"`."""
    np.savez(place / "given.npz", inputs=inputs_BL, texts=samples)
    command = [python, SIDE, *(place / name for name in ("folder", "given.npz", "computed.npz", "saved"))]
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(place / "computed.npz") as held:
        return dict(held)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "llada", "ar", "mdm"])
def test_transformers_computes_our_logits_and_ids(tmp_path, python, request, name):
    """`llama` and `llada` are random models of bytes; `ar` and `mdm` are weights that SMDM's code gave."""
    folder, random = tmp_path / "folder", name.startswith("ll")
    attention = Attention.CAUSAL if name == "llama" else Attention.BIDIRECTIONAL
    golden = None if random else request.getfixturevalue("reference_data") / "smdm_golden" / f"{name}.safetensors"
    model = load(golden or write_random(tmp_path / "model", attention, 16))
    model.export_hf(folder, tokenizer=random)
    vocab = model.spec.vocab_size
    inputs_BL = np.random.default_rng(0).integers(0, vocab + model.has_start, (4, 16))
    computed = by_transformers(tmp_path, python, inputs_BL, TEXTS)
    np.testing.assert_allclose(computed["logits"][..., :vocab], model.logits(inputs_BL), atol=1e-4)
    assert (computed["logits"].argmax(-1) < vocab).all()
    if random:
        begins = [vocab] if name == "llama" else []
        expected = [begins + model.tokenizer.encode(str(text)).tolist() for text in TEXTS]
        assert [row.tolist() for row in np.split(computed["ids"], np.cumsum(computed["counts"])[:-1])] == expected
        np.testing.assert_array_equal(computed["decoded"], TEXTS)
    if name in ("llama", "ar"):
        assert (computed["greedy"][:, 2:] < vocab).all()
        assert (computed["sampled"] < vocab).all(), "the start token is suppressed, also in sampling from a flat law"
        assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
        load(tmp_path / "saved").export(tmp_path / "again")
        model.export(tmp_path / "before")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "before").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [byte_level, word_piece, llama])
def test_transformers_gives_the_ids_of_a_tokenizer_json(tmp_path, python, kind):
    size = 120 if kind is word_piece else 400
    spec = dataclasses.replace(TRUNK, vocab_size=size, attention=Attention.CAUSAL)
    file = ModelFile(spec, 16, True, random_weights(spec))
    write_hf(tmp_path / "given", file, tokenizer={"tokenizer.json": kind(texts(60), size).encode()})
    model = load(tmp_path / "given")
    model.export_hf(tmp_path / "folder")
    samples = np.array(["", *texts(5), "a </s> b <|start|>"])
    computed = by_transformers(tmp_path, python, np.zeros((1, 2), int), samples)
    expected = [[size, *model.tokenizer.encode(str(text)).tolist()] for text in samples]
    assert [row.tolist() for row in np.split(computed["ids"], np.cumsum(computed["counts"])[:-1])] == expected
