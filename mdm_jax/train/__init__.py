"""Training: one state, one step and one loop for both families."""
