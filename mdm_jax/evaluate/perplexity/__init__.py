"""Perplexity and bits per byte of any texts under trained models of both families."""
