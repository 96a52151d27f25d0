# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Open a trained model
#
# `load` opens the folder of a run, a safetensors file or a Hugging Face folder. Here we open two small models of bytes
# from `experiments/cpu_overnight.py`: a masked diffusion model (MDM) and an autoregressive model (ARM) of the same
# shape. For a run of your own, write `load("runs/quickstart/runs/<run_id>")`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import log_softmax

import experiments
from mdm_jax import load

folder = Path(experiments.__file__).parent / "results" / "cpu_overnight"
mdm, arm = (load(folder / f"{family}-2x40.safetensors") for family in ("mdm", "arm"))
for model in (mdm, arm):
    print(model.family.upper(), model.spec.n_layers, "layers, rows of", model.seq_len, "bytes")

# %% [markdown]
# `logits` gives float32 logits for any tokens. An MDM predicts the tokens that are MASK, whose id is V. We hide three
# bytes, and list the likeliest bytes at each place.

# %%
mask = mdm.spec.vocab_size
tokens = mdm.tokenizer.encode("Return the number of bytes in the file.")[None]
tokens[0, [3, 9, 22]] = mask
log_p_LV = log_softmax(np.asarray(mdm.logits(tokens)[0]), -1)
rows = {}
for place in (3, 9, 22):
    best = np.argsort(-log_p_LV[place])[:4]
    rows[f"byte {place}"] = [f"{chr(b)!r} {np.exp(log_p_LV[place, b]):.2f}" for b in best]
pd.DataFrame(rows, index=["first", "second", "third", "fourth"]).T

# %% [markdown]
# The next cell asks each model for the nats of every byte of a sentence. The ARM sees the bytes before it. The MDM may
# see both sides: row i of the batch hides byte i alone. This is no likelihood, because each byte is scored with all the
# others in view.

# %%
ids = arm.tokenizer.encode("Return the number of bytes in the file.")
length = len(ids)
start_then_ids = np.concatenate([[arm.spec.vocab_size], ids[:-1]])[None]
arm_nats = -log_softmax(np.asarray(arm.logits(start_then_ids)[0]), -1)[np.arange(length), ids]
one_hidden = np.where(np.eye(length, dtype=bool), mask, ids)
mdm_nats = -log_softmax(np.asarray(mdm.logits(one_hidden)), -1)[np.arange(length), np.arange(length), ids]
figure, axes = plt.subplots(figsize=(10, 3), dpi=100, layout="constrained")
axes.step(range(length), arm_nats, where="mid", color="#0072B2", label="ARM, which sees the bytes before")
axes.step(range(length), mdm_nats, where="mid", color="#D55E00", label="MDM, which sees both sides")
axes.set_xticks(range(length), [chr(b) if b != 32 else "␣" for b in ids], family="DejaVu Sans Mono")
axes.set_ylim(0, 7.5)
axes.spines[["top", "right"]].set_visible(False)
axes.set_title("Nats of each byte", loc="left")
_ = axes.legend(frameon=False, ncols=2, loc="upper center")

# %% [markdown]
# `text_loss` scores whole texts. The ARM's loss is its likelihood. For the MDM, `nelbo` is an upper bound of the nats,
# the mean over all orders, estimated by random masks. Two orders give exact likelihoods: from left to right, and the
# most confident position first. Bits per byte can be compared across tokenizers.

# %%
text = "Return the number of bytes in the file. If the file does not exist, raise an error."
scores = {("ARM", "left_to_right"): arm.text_loss([text], "left_to_right")}
for method in ("nelbo", "left_to_right", "confidence"):
    scores["MDM", method] = mdm.text_loss([text], method)
columns = {"nats": lambda s: s.nats, "± draws": lambda s: s.se_mc, "bits per byte": lambda s: s.bits_per_byte}
table = pd.DataFrame({name: [value(score) for score in scores.values()] for name, value in columns.items()})
table.set_index(pd.MultiIndex.from_tuples(scores)).round(1)

# %% [markdown]
# `loglikelihood` scores a target given its prompt, as multiple-choice tasks need it. A model this small does not know
# what a file is, but it has learned which words are common.

# %%
pairs = [("Return the number of ", answer) for answer in ("bytes.", "zebra.", "xqzvk.")]
exact = mdm.loglikelihood(pairs, "any_order")
sampled = mdm.loglikelihood(pairs, draws=32)
of_arm = arm.loglikelihood(pairs, "left_to_right")
for (_, answer), a, b, c in zip(pairs, exact, sampled, of_arm, strict=True):
    by_draws = f"{b.loglikelihood:.0f} ± {b.se_mc:.0f} by {b.draws} draws"
    print(f"{answer:7s} MDM {a.loglikelihood:.0f} exact, {by_draws}; ARM {c.loglikelihood:.0f}")

# %% [markdown]
# Unsupervised guidance compares two predictions: with the prompt, and with MASK in its place. A positive strength moves
# the scores away from the prediction without the prompt. The result is no likelihood any more, and the score says so.

# %%
for strength in (0.0, 0.5, 1.0):
    guided = mdm.loglikelihood(pairs[:2], "left_to_right", guidance=strength)
    difference = guided[0].loglikelihood - guided[1].loglikelihood
    print(f"strength {strength}: {difference:.1f} nats between the answers; likelihood: {guided[0].is_likelihood}")
