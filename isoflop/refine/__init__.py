"""Refinement: proposes the next runs of a sweep; `python -m isoflop.refine DIR`."""
