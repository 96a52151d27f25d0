"""What transformers computes from a Hugging Face folder: run by `benchmarks/hf_logits.py` with the Python that has it.

    python benchmarks/transformers_side.py FOLDER GIVEN.npz COMPUTED.npz SAVED

GIVEN has `inputs` (ids, [B, L]) and `texts`. COMPUTED gets the logits, the ids of the texts, and for an ARM greedy
continuations and the ids that sampling gave. SAVED is a folder that transformers then saves the model to, in several
files. LLaDA's own code is not in transformers: Llama's class reads the tensors of its layout, and attends to all
positions. The program needs numpy, torch and transformers.
"""

# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

GENERATED = 40
LLAMA_OF_LLADA = {
    "transformer.wte": "embed_tokens",
    "transformer.ln_f": "norm",
    "transformer.blocks": "layers",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
"""LLaDA's names and Llama's: its feed-forward activation is applied to `ff_proj`."""


def as_llama(folder: Path, config: dict) -> LlamaForCausalLM:
    """The model of a folder in LLaDA's layout."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["d_model"],
            intermediate_size=config["mlp_hidden_size"],
            num_hidden_layers=config["n_layers"],
            num_attention_heads=config["n_heads"],
            max_position_embeddings=config["max_sequence_length"],
            rms_norm_eps=config["rms_norm_eps"],
            rope_theta=config["rope_theta"],
        )
    )
    renamed = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        llama = "lm_head.weight" if name == "model.transformer.ff_out.weight" else name
        for theirs, ours in LLAMA_OF_LLADA.items():
            llama = llama.replace(f".{theirs}.", f".{ours}.")
        renamed[llama] = tensor
    model.load_state_dict(renamed)
    return model.train(False)


def main() -> None:
    folder, given, computed, saved = map(Path, sys.argv[1:])
    config = json.loads((folder / "config.json").read_text())
    causal = config["model_type"] == "llama"
    with np.load(given) as data:
        inputs, texts = torch.from_numpy(data["inputs"]).long(), [str(text) for text in data["texts"]]
    found = {}
    if (folder / "tokenizer_config.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        rows = [tokenizer(text)["input_ids"] for text in texts]
        found["ids"] = np.array([i for row in rows for i in row], np.int64)
        found["counts"] = np.array([len(row) for row in rows])
        found["decoded"] = np.array([tokenizer.decode(row, skip_special_tokens=True) for row in rows])
    model = LlamaForCausalLM.from_pretrained(folder).train(False) if causal else as_llama(folder, config)
    length = inputs.shape[1]
    every = None if causal else torch.zeros(1, 1, length, length)
    with torch.no_grad():
        found["logits"] = model(inputs, attention_mask=every).logits.numpy()
        if causal:
            prompt, seen = inputs[:, :2], torch.ones_like(inputs[:, :2])
            found["greedy"] = model.generate(prompt, attention_mask=seen, do_sample=False, max_new_tokens=4).numpy()
            torch.manual_seed(0)
            many = {"do_sample": True, "max_new_tokens": GENERATED, "temperature": 100.0, "top_k": 0}
            found["sampled"] = model.generate(prompt, attention_mask=seen, **many).numpy()[:, 2:]
            model.save_pretrained(saved, max_shard_size="20KB")
    found["versions"] = np.array([transformers.__version__, torch.__version__])
    np.savez(computed, **found)


if __name__ == "__main__":
    main()
