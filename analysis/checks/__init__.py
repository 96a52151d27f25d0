"""Findings: what a referee would ask of the runs, of the curves and of the gap."""
