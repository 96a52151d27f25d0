"""GSM8K's word problems, answered by a trained model."""
