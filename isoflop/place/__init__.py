"""Placement: the budgets and sizes of a sweep, from what is expected of each family."""
