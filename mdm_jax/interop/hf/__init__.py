"""Hugging Face folders: an ARM as `LlamaForCausalLM`, an MDM in the layout of LLaDA (Nie et al. 2025, 2502.09992)."""
