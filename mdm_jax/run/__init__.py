"""One run as a process: its attempts, its record, its program cache, its peers and its display."""
