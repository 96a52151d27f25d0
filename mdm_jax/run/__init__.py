"""One run as a process: its attempts, its record, its program cache, its peers, and what a person sees of it."""
