"""Local sweep: trains the runs of a plan in other processes, several runs at a time."""
