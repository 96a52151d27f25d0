"""Samplers: text from a trained model. A file has one sampler, and all of an MDM's samplers have one signature."""
