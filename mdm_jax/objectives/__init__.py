"""Training losses and their estimators. They take any model as `hidden(tokens_BL) -> h_BLD` and the head's weight."""
