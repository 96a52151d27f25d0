"""Parametric surfaces L(N, D): the fit, its solver, its bootstrap and its frontier."""
