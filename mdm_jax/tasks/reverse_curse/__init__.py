"""The reverse curse: does a model that read "A is B" also know "B is A"? Berglund et al. 2023, arXiv 2309.12288."""
