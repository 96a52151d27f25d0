"""Training losses and their estimators.

They know no model: they take `hidden(tokens_BL) -> h_BLD` and the head's weight.
"""
