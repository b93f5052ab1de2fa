"""The only gradient mathematics of the toolkit: the token-level policy gradient of Eq. 4 (arXiv 2603.11137)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reopold_vl.types import LossOutput


def policy_gradient_loss(
    logprobs: Float[Tensor, "batch time"],
    old_logprobs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    denominator: float,
    ratio_bounds: tuple[float, float] | None = None,
) -> LossOutput:
    r"""Minus the surrogate objective of one micro-batch.

        loss = -(1 / denominator) * sum_i sum_t  rho_it * A_it * M_it,     rho_it = pi_theta / pi_old

    `denominator` is sum M over everything that shares the update (all micro-batches, all ranks), so the losses of
    micro-batches add up to the loss of the whole. `old_logprobs` and `advantages` carry no gradient. Entries outside
    `mask` may be anything, NaN included. There is no PPO clip on rho, as in the paper, unless `ratio_bounds` asks for
    one: then min(rho A, clip(rho, low, high) A) stands for rho A (Eq. 7 of arXiv 1707.06347).

    Raises ValueError if `denominator` is not positive: an empty mask is the caller's no-op, never a division by zero.
    """
    if denominator <= 0:
        raise ValueError(f"denominator is {denominator}: the number of kept tokens must be positive")
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0.0)
    ratio = log_ratio.exp()
    weight = torch.where(mask, advantages.detach(), 0.0)
    surrogate = ratio * weight
    if ratio_bounds is not None:
        surrogate = torch.minimum(surrogate, ratio.clamp(*ratio_bounds) * weight)
    loss = -surrogate.sum() / denominator
    with torch.no_grad():
        highest = torch.where(mask, ratio, 0.0).max() if mask.numel() else ratio.new_zeros(())
        metrics = {"loss": loss.detach(), "ratio/max": highest}
    return LossOutput(loss=loss, metrics=metrics)
