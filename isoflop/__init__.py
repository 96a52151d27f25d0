"""Planner and runner of IsoFLOP sweeps: budgets and sizes in, a plan of runs and their results out. Loads no jax."""
