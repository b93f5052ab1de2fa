"""The gradient pass: from a signal that is known before it starts to updates of the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from reopold_vl.collate import collate_rollouts, prompt_groups
from reopold_vl.loss import policy_gradient_loss
from reopold_vl.optim import update
from reopold_vl.policy import Policy
from reopold_vl.types import Rollout, ScoredBatch, TokenSignal


@dataclass
class LearnResult:
    """What happened to the student in one step: a list entry per update."""

    lr: float  # of the step's first update
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    ratio_max: float = 0.0
    empty: int = 0  # updates without a kept token: logged no-ops
    skipped: int = 0  # updates with a non-finite gradient: nothing moved


def learn(
    policy: Policy,
    rollouts: Sequence[Rollout],
    batch: ScoredBatch,
    signal: TokenSignal,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    updates: int,
    rows_at_once: int,
    max_grad_norm: float,
    pad_id: int,
) -> LearnResult:
    """`updates` updates, each on its share of the prompts; sum M of Eq. 4 is taken over the update's whole share."""
    result = LearnResult(lr=scheduler.get_last_lr()[0])
    for share in minibatches(rollouts, updates):
        kept = int(signal.mask[share].sum())
        if kept == 0:
            result.empty += 1
            scheduler.step()
            continue
        loss = 0.0
        for piece in prompt_groups(rollouts[share], rows_at_once):
            rows = slice(share.start + piece.start, share.start + piece.stop)
            tokens = collate_rollouts(rollouts[rows], pad_id=pad_id).to(policy.device)
            length = tokens.mask.shape[1]
            keep, old, advantages = (
                whole[rows, :length].to(policy.device) for whole in (signal.mask, batch.old_logprobs, signal.advantages)
            )
            if not keep.any():  # nothing of this piece is trained on
                continue
            output = policy_gradient_loss(policy(tokens, keep).logprobs, old, advantages, keep, denominator=kept)
            output.loss.backward()
            loss += output.metrics["loss"]
            result.ratio_max = max(result.ratio_max, output.metrics["ratio/max"])
        trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        norm = update(optimizer, scheduler, trainable, max_grad_norm=max_grad_norm)
        result.losses.append(loss)
        if norm is None:
            result.skipped += 1
        else:
            result.grad_norms.append(norm)
    return result


def minibatches(rollouts: Sequence[Rollout], updates: int) -> Iterator[slice]:
    """`updates` slices with (nearly) the same number of prompts; fewer where there are fewer prompts."""
    sizes = [len(list(group)) for _, group in groupby(rollouts, key=lambda rollout: id(rollout.prompt))]
    start = 0
    for index in range(min(updates, len(sizes))):
        first, last = (len(sizes) * k // min(updates, len(sizes)) for k in (index, index + 1))
        stop = start + sum(sizes[first:last])
        yield slice(start, stop)
        start = stop
