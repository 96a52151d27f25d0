"""Classifier-free guidance of MDMs on pairs: dropped prompts in training against the scale at inference."""
