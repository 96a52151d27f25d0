"""Sources of text: files of text, JSONL, Parquet and TFDS, and the documentation of installed packages."""
