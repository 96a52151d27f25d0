"""IsoFLOP curves: the best size of each budget, its error and its bootstrap."""
