"""Local sweep: trains the runs of a plan, each in a separate process."""
