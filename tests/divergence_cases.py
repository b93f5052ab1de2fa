"""Each divergence on three tokens by hand, and its formula written densely for one token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reopold_vl.objectives.divergences.aopd import AOPD
from reopold_vl.objectives.divergences.eopd import EOPD
from reopold_vl.objectives.divergences.gkd import GKD
from reopold_vl.objectives.divergences.topk_reverse_kl import TopKReverseKL
from reopold_vl.objectives.divergences.tropd import TrOPD

STUDENT, TEACHER = [0.5, 0.25, 0.25], [0.125, 0.5, 0.375]
UP, DOWN = math.log(2), -math.log(4)  # the rewards of the second and of the first id
FORWARD_1 = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # the teacher's likeliest id and the rest: 0.5 and 0.25

Dense = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # p, q, id, old probability, advantage -> loss


def dense_kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def dense_coarse(p: Tensor, q: Tensor, k: int) -> Tensor:
    top = p.detach().argsort(descending=True)[:k]
    merged = [torch.cat([one[top], 1 - one[top].sum(0, keepdim=True)]) for one in (p, q)]
    return dense_kl(merged[0], merged[1])


def dense_jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    middle = beta * q + (1 - beta) * p
    return beta * dense_kl(q, middle) + (1 - beta) * dense_kl(p, middle)


def dense_eopd(p: Tensor, q: Tensor, threshold: float) -> Tensor:
    return dense_kl(p, q) + (dense_coarse(q, p, 1) if float(-(q * q.log()).sum()) > threshold else 0.0)


@dataclass(frozen=True)
class Case:
    """An objective; its losses of the second id (reward UP) and of the first (DOWN), and its formula for one token."""

    objective: Any
    losses: tuple[float, float]
    dense: Dense


CASES = {
    "forward": Case(GKD(0.0), (0.3253362, 0.3253362), lambda p, q, *_: dense_kl(q, p)),
    "reverse": Case(GKD(1.0), (0.4184941, 0.4184941), lambda p, q, *_: dense_kl(p, q)),
    "gkd": Case(GKD(), (0.0877624, 0.0877624), lambda p, q, *_: dense_jsd(p, q, 0.5)),
    "gkd_01": Case(GKD(0.1), (0.0295731, 0.0295731), lambda p, q, *_: dense_jsd(p, q, 0.1)),
    "topk_reverse_kl": Case(TopKReverseKL(1), (0.4133393, 0.4133393), lambda p, q, *_: dense_coarse(p, q, 1)),
    # The teacher's entropy is 0.9743 nats.
    "eopd": Case(EOPD(k=1), (0.4184941 + FORWARD_1, 0.4184941 + FORWARD_1), lambda p, q, *_: dense_eopd(p, q, 0.8)),
    "eopd_sure": Case(EOPD(threshold=1.0, k=1), (0.4184941, 0.4184941), lambda p, q, *_: dense_eopd(p, q, 1.0)),
    "aopd": Case(
        AOPD(k=1),
        (-UP, FORWARD_1),
        lambda p, q, index, old, advantage: -p[index] / old * advantage if advantage > 0 else dense_coarse(q, p, 1),
    ),
    "tropd": Case(TrOPD(k=1), (-UP, -DOWN), lambda p, q, index, old, advantage: -p[index] / old * advantage),
}
