"""Evaluation: losses on a fixed set of tokens, with their errors."""
