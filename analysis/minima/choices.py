"""The choices of an IsoFLOP recipe. This module imports nothing, so that command lines answer --help at once."""

ABSCISSAE = ("params_non_embedding", "params", "tokens", "flops_per_token")
CURVES = ("quadratic", "cubic", "akima")
WEIGHTS = ("errors", "equal")
SCATTER = ("add", "ignore")
