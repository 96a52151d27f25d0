"""Trained models to hold: logits, losses of texts, log-likelihoods of targets, and export."""
