"""reopold_vl: distil the reasoning of a large vision-language model into a small one with REOPOLD."""

__version__ = "0.1.0"
