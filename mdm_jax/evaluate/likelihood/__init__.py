"""Log-probabilities of rows, texts and (prompt, target) pairs under a trained model."""
