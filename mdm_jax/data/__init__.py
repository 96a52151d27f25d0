"""Text to batches: corpus sources, tokenizers, preparation into shards, the token store and rows of batches."""
