"""Sources of text: files of text, JSONL, Parquet, FASTA and TFDS, and the documentation of installed packages."""
