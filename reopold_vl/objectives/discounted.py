"""Reverse KL with credit for what follows: the discounted return of the token rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class Discounted:
    """Discounted return: a token answers for the rewards that come after it as well.

    A_t = (1 - gamma) sum_{s >= 0} gamma^s R_{t+s},  M_t = 1,  R_t = log pi_T(o_t|s_t) - log pi_S(o_t|s_t)

    gamma = 0 is reverse_kl. At gamma = 1 (without the factor) A_t would be the unbiased gradient of the sequence-level
    reverse KL, at the variance of a whole answer's reward. The factor 1 - gamma makes it a weighted mean of rewards, of
    at most the size of R; answers much shorter than 1 / (1 - gamma) tokens make it smaller.
    """

    gamma: float = 0.99
    """Discount of a token's reward for each token that lies between; 0 <= gamma < 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise ValueError(f"objective.gamma is {self.gamma}: allowed is 0 <= gamma < 1")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        returns = discounted_returns(batch.rewards, batch.mask, self.gamma)
        return TokenSignal(advantages=(1 - self.gamma) * returns, mask=batch.mask)


def discounted_returns(
    rewards: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], gamma: float
) -> Float[Tensor, "batch time"]:
    """sum_{s >= 0} gamma^s R_{t+s} over the response tokens; 0 outside the mask."""
    returns = rewards.masked_fill(~mask, 0.0).clone()
    for time in range(returns.shape[1] - 2, -1, -1):
        returns[:, time] += gamma * returns[:, time + 1]
    return returns.masked_fill(~mask, 0.0)
