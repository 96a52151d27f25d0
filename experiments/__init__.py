"""Experiments, one file each: `get_config()` describes a sweep, and the docstring says what it takes and shows."""
