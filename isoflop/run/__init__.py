"""Local sweep: trains the runs of a plan, some at a time, in processes of their own."""
