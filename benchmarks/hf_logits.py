"""How far the logits of an exported Hugging Face folder in transformers are from ours.

    python benchmarks/hf_logits.py --python PYTHON

PYTHON is a Python that has numpy, torch and transformers; it need not have jax. The program takes one to four minutes
on two cores, and writes benchmarks/results/hf_logits.json. An ARM is read by LlamaForCausalLM. LLaDA's code is not in
transformers: an MDM is read by Llama's class, with attention to all positions.

The models are those of SMDM's own code, if the reference data are present (see tests/conftest.py), and SMDM's size 6
with random weights. A spread of sqrt(2/5) over the root of d_model is that of the start of training. A spread of 1.5
makes the trunk amplify each rounding error. The difference then grows with the length of a row: float32 holds the angle
of RoPE at position 2000 to 6e-5, and transformers rounds it in another order.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from isoflop.ladder import SMDM
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import Attention, ModelSpec
from mdm_jax.trained.load import load
from mdm_jax.trained.model import Model

HERE = Path(__file__).resolve().parent
VOCAB = 1000
CASES = {
    "initial, 2048 tokens": (0.4**0.5, 2048),
    "spread 1.5, 128 tokens": (1.5, 128),
    "spread 1.5, 2048 tokens": (1.5, 2048),
}


def random_model(attention: Attention, spread: float, length: int, folder: Path) -> Model:
    """A model of SMDM's size 6. The weights have a standard deviation of `spread` over the root of d_model."""
    spec = SMDM["6"].model(ModelSpec(vocab_size=VOCAB, attention=attention))
    shapes = jax.eval_shape(lambda: Transformer(spec, jax.random.key(0)))
    draw, weights = np.random.default_rng(0), {}
    for entry, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        name = jax.tree_util.keystr(entry, simple=True, separator=".").split(".")[-2]
        norm = name.startswith("norm")
        weights[name] = draw.normal(norm, 0.1 if norm else spread * spec.d_model**-0.5, leaf.shape).astype(np.float32)
    file = folder / f"{attention.value}-{spread}-{length}"
    write_smdm(file, weights, spec, length, has_start=True)
    return load(file)


def compared(model: Model, length: int, python: str, folder: Path) -> dict[str, Any]:
    """The largest difference of a logit, and the largest logit."""
    vocab = model.spec.vocab_size
    model.export_hf(folder / "folder", tokenizer=False)
    inputs_BL = np.random.default_rng(1).integers(0, vocab + model.has_start, (1, length))
    np.savez(folder / "given.npz", inputs=inputs_BL, texts=np.array([], str))
    paths = [folder / name for name in ("folder", "given.npz", "computed.npz", "saved")]
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, HERE / "transformers_side.py", *paths], env=alone, check=True, stderr=subprocess.DEVNULL)
    with np.load(folder / "computed.npz") as held:
        theirs_BLV, versions = held["logits"], [str(version) for version in held["versions"]]
    ours_BLV = np.asarray(model.logits(inputs_BL))
    difference = float(np.abs(theirs_BLV[..., :vocab] - ours_BLV).max())
    return {
        "largest_difference": difference,
        "largest_logit": float(np.abs(ours_BLV).max()),
        "extra_token_wins": int((theirs_BLV.argmax(-1) >= vocab).sum()),
        "transformers": versions[0],
        "torch": versions[1],
    }


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--python", required=True, help="a Python with torch and transformers")
    python = flags.parse_args().python
    golden = Path(os.environ.get("MDM_REFERENCE_DATA") or HERE.parent.parent / "shared" / "data") / "smdm_golden"
    rows = {}
    with tempfile.TemporaryDirectory() as made:
        files = [golden / f"{name}.safetensors" for name in ("ar", "mdm")]
        cases = [(f"{file.stem} of SMDM's code", load(file), 24) for file in files if file.exists()]
        for name, (spread, length) in CASES.items():
            models = [random_model(attention, spread, length, Path(made)) for attention in Attention]
            cases += [(f"{model.family.value}, {name}", model, length) for model in models]
        for name, model, length in cases:
            with tempfile.TemporaryDirectory() as folder:
                rows[name] = compared(model, length, python, Path(folder))
            print(f"{name:30} largest difference {rows[name]['largest_difference']:.1e}", flush=True)
    (HERE / "results" / "hf_logits.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
