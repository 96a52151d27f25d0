"""Interchange: weights in the formats of other projects."""
