"""Temporal shift: how the loss of both families grows on texts that are newer than the training texts."""
