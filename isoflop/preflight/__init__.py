"""Preflight: whether each run of a plan fits the hardware that it is planned for."""
