"""Readers of published pairs: ShareGPT, GSM8K, and plain prompts with responses."""
