"""Objectives by name. A new one is one file and one line here; the name is what `--objective` and config.yaml take."""

from reopold_vl.objectives.reopold import Reopold
from reopold_vl.objectives.reverse_kl import ReverseKL

OBJECTIVES = {"reopold": Reopold, "reverse_kl": ReverseKL}

__all__ = ["OBJECTIVES", "Reopold", "ReverseKL"]
