"""Tasks of the two papers: each trains or takes a model, and measures one claim about it."""
