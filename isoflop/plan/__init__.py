"""Planner: the command that writes a plan, and the table that it prints."""
