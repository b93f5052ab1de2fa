"""Objectives by name, as `--objective` and config.yaml take it. A new one is one file and a line in each list here."""

from __future__ import annotations

from reopold_vl.objectives.discounted import Discounted
from reopold_vl.objectives.divergences.aopd import AOPD
from reopold_vl.objectives.divergences.eopd import EOPD
from reopold_vl.objectives.divergences.gkd import GKD
from reopold_vl.objectives.divergences.topk_reverse_kl import TopKReverseKL
from reopold_vl.objectives.divergences.tropd import TrOPD
from reopold_vl.objectives.exopd import ExOPD
from reopold_vl.objectives.grpo import GRPO
from reopold_vl.objectives.iw_opd import IWOPD
from reopold_vl.objectives.reopold import Reopold
from reopold_vl.objectives.reverse_kl import ReverseKL
from reopold_vl.objectives.sft import SFT
from reopold_vl.objectives.tip import TIP
from reopold_vl.objectives.va_opd import VAOPD
from reopold_vl.objectives.verifier import VerifierGate, VerifierMix
from reopold_vl.objectives.vgs import VGS
from reopold_vl.objectives.vopd import VOPD

OBJECTIVES = {
    "reopold": Reopold,
    "reverse_kl": ReverseKL,
    "grpo": GRPO,
    "sft": SFT,
    "discounted": Discounted,
    "iw_opd": IWOPD,
    "exopd": ExOPD,
    "vopd": VOPD,
    "tip": TIP,
    "verifier_mix": VerifierMix,
    "verifier_gate": VerifierGate,
    "va_opd": VAOPD,
    "vgs": VGS,
    "gkd": GKD,
    "topk_reverse_kl": TopKReverseKL,
    "eopd": EOPD,
    "aopd": AOPD,
    "tropd": TrOPD,
}

# The same as a type, for the configuration.
AnyObjective = (
    Reopold
    | ReverseKL
    | GRPO
    | SFT
    | Discounted
    | IWOPD
    | ExOPD
    | VOPD
    | TIP
    | VerifierMix
    | VerifierGate
    | VAOPD
    | VGS
    | GKD
    | TopKReverseKL
    | EOPD
    | AOPD
    | TrOPD
)

__all__ = ["OBJECTIVES", "AnyObjective", "Reopold", "ReverseKL"]
