"""Models of this project in lm-evaluation-harness: `python -m mdm_jax.evaluate.harness MODEL --tasks ...`."""
