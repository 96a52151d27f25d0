"""SMDM's train step in PyTorch, written from the paper: the peer of `benchmarks/train_step.py`.

    python benchmarks/peer_torch.py --family mdm --layers 6 --heads 4 --d-model 256 --rows 8 --length 512
    python benchmarks/peer_torch.py --check shared/data/smdm_golden

The program needs torch and numpy, and no jax. It reads lines from its input: a number K makes it run K steps and answer
with their seconds, as a JSON line. At the end of the input it answers with the peak of its memory. So it rests while
another program is timed. `--check` compares the logits with those of SMDM's released code, from the same weights.

The step is that of a careful user: float32, torch's fused attention (scaled_dot_product_attention), fused AdamW with
decay .1 on everything, and a global gradient clip of 1. The MDM draws one time for each row and masks each token with
its probability. As in SMDM's code, its head reads all positions, and the cross-entropy only the masked ones.
`--compile` wraps the whole loss in torch.compile.
"""

# pyright: reportMissingImports=false

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS, ROPE_BASE, LEAST_MASKED = 1e-5, 1e4, 1e-3


class Layer(nn.Module):
    """Pre-norm attention with rotary positions, then pre-norm SwiGLU; no biases."""

    def __init__(self, d_model: int, heads: int, d_ffn: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_1, self.norm_2 = nn.RMSNorm(d_model, EPS), nn.RMSNorm(d_model, EPS)
        self.qkv, self.proj = nn.Linear(d_model, 3 * d_model, bias=False), nn.Linear(d_model, d_model, bias=False)
        self.w1, self.w2 = nn.Linear(d_model, d_ffn, bias=False), nn.Linear(d_model, d_ffn, bias=False)
        self.w3 = nn.Linear(d_ffn, d_model, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The layer's output."""
        rows, length, d_model = x.shape
        # SMDM's files hold query, key and value of one head side by side.
        heads = self.qkv(self.norm_1(x)).view(rows, length, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        q, k, v = rotated(heads[0], cos, sin), rotated(heads[1], cos, sin), heads[2]
        o = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.proj(o.transpose(1, 2).reshape(rows, length, d_model))
        h = self.norm_2(x)
        return x + self.w3(F.silu(self.w1(h)) * self.w2(h))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the halves of each head."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Trunk(nn.Module):
    """SMDM's model: V+1 rows of embedding, untied head of V columns."""

    def __init__(self, vocab: int, layers: int, heads: int, d_model: int, d_ffn: int, length: int, causal: bool):
        super().__init__()
        self.wte = nn.Embedding(vocab + 1, d_model)
        self.layers = nn.ModuleList(Layer(d_model, heads, d_ffn, causal) for _ in range(layers))
        self.ln_f, self.lm_head = nn.RMSNorm(d_model, EPS), nn.Linear(d_model, vocab, bias=False)
        width = d_model // heads
        angle = torch.arange(length)[:, None] / ROPE_BASE ** (torch.arange(0, width, 2) / width)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=(2 / (5 * d_model)) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of all positions."""
        x = self.wte(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]])
        return self.lm_head(self.ln_f(x))


def mdm_loss(model: Trunk, tokens: Tensor, mask: int) -> Tensor:
    """The NELBO estimate of SMDM's training: one time a row, weight 1 / t on each masked token."""
    share = (1 - LEAST_MASKED) * torch.rand(len(tokens), 1) + LEAST_MASKED
    masked = torch.rand(tokens.shape) < share
    logits = model(torch.where(masked, mask, tokens))
    nats = F.cross_entropy(logits[masked], tokens[masked], reduction="none")
    return (nats / share.expand(tokens.shape)[masked]).sum() / tokens.numel()


def arm_loss(model: Trunk, tokens: Tensor, start: int) -> Tensor:
    """The mean NLL; every row begins with the start token."""
    inputs = torch.cat([torch.full((len(tokens), 1), start), tokens[:, :-1]], 1)
    return F.cross_entropy(model(inputs).flatten(0, 1), tokens.flatten())


def stepper(flags: argparse.Namespace) -> Callable[[], float]:
    """A function that makes one step and returns its loss."""
    torch.manual_seed(0)
    causal = flags.family == "arm"
    model = Trunk(flags.vocab, flags.layers, flags.heads, flags.d_model, flags.d_ffn, flags.length, causal)
    loss_of = arm_loss if causal else mdm_loss
    if flags.compile:
        loss_of = torch.compile(loss_of)
    optimiser = torch.optim.AdamW(model.parameters(), 4e-4, (0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, flags.vocab, (flags.rows, flags.length)))

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(model, tokens, flags.vocab)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    return step


def serve(step: Callable[[], float]) -> None:
    """Answers each number of steps with their seconds, and the end of the input with the peak of the memory."""
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            begun = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begun)
        print(json.dumps({"seconds": seconds}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak, "torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)


def check(folder: Path) -> float:
    """The largest difference of a logit from SMDM's released code."""
    from safetensors.numpy import load_file

    about = json.loads((folder / "config.json").read_text())
    worst = 0.0
    for name, causal in (("mdm", False), ("ar", True)):
        weights = {key: torch.from_numpy(value) for key, value in load_file(folder / f"{name}.safetensors").items()}
        with np.load(folder / f"{name}.npz") as held:
            inputs, logits = torch.from_numpy(held["inputs"]).long(), torch.from_numpy(held["logits"])
        rows, d_model = weights["transformer.wte.weight"].shape
        vocab, layers, d_ffn = len(weights["lm_head.weight"]), about["n_layer"], about["ffn"]
        model = Trunk(vocab, layers, about["n_head"], d_model, d_ffn, inputs.shape[1], causal)
        if rows == vocab:  # SMDM's ARM has no start token
            weights["transformer.wte.weight"] = F.pad(weights["transformer.wte.weight"], (0, 0, 0, 1))
        renamed = {name_of(key): value for key, value in weights.items()}
        model.load_state_dict(renamed)
        with torch.no_grad():
            worst = max(worst, float((model(inputs) - logits).abs().max()))
    return worst


def name_of(key: str) -> str:
    """The twin's name of a tensor in SMDM's file."""
    for theirs, ours in (
        ("transformer.h.", "layers."),
        ("attn.attn", "qkv"),
        ("attn.proj", "proj"),
        ("mlp.swiglu.", ""),
    ):
        key = key.replace(theirs, ours)
    return key.removeprefix("transformer.")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--check", type=Path, metavar="FOLDER", help="compare logits with SMDM's, and end")
    flags.add_argument("--family", choices=["mdm", "arm"], default="mdm")
    for name, default in (("vocab", 32000), ("layers", 6), ("heads", 4), ("d-model", 256), ("d-ffn", 1024)):
        flags.add_argument(f"--{name}", type=int, default=default)
    flags.add_argument("--rows", type=int, default=8)
    flags.add_argument("--length", type=int, default=512)
    flags.add_argument("--compile", action="store_true", help="use torch.compile")
    given = flags.parse_args()
    if given.check:
        print(f"largest difference of a logit: {check(given.check):.1e}")
    else:
        serve(stepper(given))


if __name__ == "__main__":
    main()
