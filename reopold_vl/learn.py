"""The gradient pass: from a signal that is known before it starts to updates of the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from reopold_vl import distributed
from reopold_vl.collate import micro_batches, moved
from reopold_vl.divergence import DivergenceLoss
from reopold_vl.loss import policy_gradient_loss
from reopold_vl.optim import update
from reopold_vl.sharding import Groups, Learner, common_passes
from reopold_vl.types import LossOutput, Rollout, ScoredBatch, TokenSignal


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
    learner: Learner,
    rollouts: Sequence[Rollout],
    batch: ScoredBatch,
    signal: TokenSignal,
    *,
    owners: Sequence[int] | None = None,
    divergence: DivergenceLoss | None = None,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    updates: int,
    rows_at_once: int,
    max_grad_norm: float,
    pad_id: int,
) -> LearnResult:
    """`updates` updates, each on its share of the prompts; sum M of Eq. 4 is taken over the update's whole share.

    `rollouts`, `batch` and `signal` are the whole step's; of several processes each trains on the rows that it owns
    (`owners` [B]; None: there is one process), and all make the same number of passes. An answer is read up to its last
    kept token: none before it looks at what comes behind. The loss is the policy gradient's, or `divergence`.
    """
    result = LearnResult(lr=scheduler.get_last_lr()[0])
    rollouts = [up_to_last_kept(*each) for each in zip(rollouts, signal.mask, strict=True)]
    for share in minibatches(rollouts, updates):
        kept = int(signal.mask[share].sum())
        if kept == 0:
            result.empty += 1
            scheduler.step()
            continue
        own = own_pieces(rollouts, share, owners, rows_at_once)
        passes = common_passes(learner.policy, learner.filler, [[rollouts[row] for row in piece] for piece in own])
        metrics: list[Mapping[str, Tensor]] = []
        for number, groups in enumerate(passes):
            with learner.passing(last=number + 1 == len(passes)):
                if number >= len(own):
                    idle_pass(learner, groups, pad_id=pad_id)
                    continue
                rows = torch.tensor(own[number])
                shape = {"kept": kept, "groups": groups, "pad_id": pad_id}
                output = piece_loss(learner, divergence, rollouts, batch, signal, rows, **shape)
                (output.loss * distributed.size()).backward()  # gradients are averaged over processes, Eq. 4 is a sum
            metrics.append(output.metrics)
        if not distributed.largest(any(rollouts[row].prompt.sample.images for piece in own for row in piece)):
            learner.forget_filler()
        norm = update(optimizer, scheduler, learner.trainable(), max_grad_norm=max_grad_norm)
        loss, ratio_max = summed(metrics)
        result.losses.append(distributed.total(loss))
        result.ratio_max = max(result.ratio_max, distributed.largest(ratio_max))
        if norm is None:
            result.skipped += 1
        else:
            result.grad_norms.append(norm)
    return result


def piece_loss(
    learner: Learner,
    divergence: DivergenceLoss | None,
    rollouts: Sequence[Rollout],
    batch: ScoredBatch,
    signal: TokenSignal,
    rows: Int[Tensor, " rows"],
    *,
    kept: int,
    groups: Groups | None = None,
    pad_id: int,
) -> LossOutput:
    """The part of an update's loss that these rows of the step contribute; `kept` is the update's sum M."""
    own = [rollouts[row] for row in rows.tolist()]
    tokens = learner.collate(own, groups, pad_id=pad_id).to(learner.policy.device)
    keep, old, advantages = (
        fitted(whole[rows], tokens.mask.shape) for whole in (signal.mask, batch.old_logprobs, signal.advantages)
    )
    if divergence is not None:
        return divergence(learner.module, tokens, own, old, advantages, keep, denominator=kept)
    logprobs = learner.module(tokens, keep).logprobs
    keep, old, advantages = (moved(each, learner.policy.device) for each in (keep, old, advantages))
    return policy_gradient_loss(logprobs, old, advantages, keep, denominator=kept, ratio_bounds=signal.ratio_bounds)


def summed(metrics: Sequence[Mapping[str, Tensor]]) -> tuple[float, float]:
    """The loss and the largest ratio of an update from those of its pieces, read from the device at once."""
    if not metrics:
        return 0.0, 0.0
    losses, ratios = (torch.stack([each[name] for each in metrics]) for name in ("loss", "ratio/max"))
    loss, ratio_max = torch.stack([losses.sum(), ratios.max()]).tolist()
    return loss, ratio_max


def idle_pass(learner: Learner, groups: Groups | None, *, pad_id: int) -> None:
    """A pass for the sake of the other processes: through all parts of the model, with gradients of zero."""
    tokens = learner.collate([], groups, pad_id=pad_id).to(learner.policy.device)
    (learner.module(tokens, tokens.host.mask).logprobs * 0.0).sum().backward()


def fitted(whole: Tensor, shape: torch.Size) -> Tensor:
    """[rows, T] as [batch, time]: cut to the answers' length, zero in rows that it lacks."""
    found = torch.zeros(shape, dtype=whole.dtype)
    length = min(shape[1], whole.shape[1])
    found[: len(whole), :length] = whole[:, :length]
    return found


def own_pieces(
    rollouts: Sequence[Rollout],
    share: slice,
    owners: Sequence[int] | None,
    rows_at_once: int,
) -> list[list[int]]:
    """What this process has to do of a share: pieces of rows of the step, empty answers left out."""
    rank = distributed.rank()
    mine = [row for row in range(share.start, share.stop) if owners is None or owners[row] == rank]
    rows = [row for row in mine if len(rollouts[row].response_ids)]
    return [[rows[place] for place in piece] for piece in micro_batches([rollouts[row] for row in rows], rows_at_once)]


def up_to_last_kept(rollout: Rollout, keep: Bool[Tensor, " time"]) -> Rollout:
    """The rollout without the tokens behind the last one in `keep`: an empty answer where there is none."""
    places = keep.nonzero()
    stop = int(places[-1]) + 1 if len(places) else 0
    ids, logprobs, entropy = (each[:stop] for each in (rollout.response_ids, rollout.logprobs, rollout.entropy))
    return replace(rollout, response_ids=ids, logprobs=logprobs, entropy=entropy)


def minibatches(rollouts: Sequence[Rollout], updates: int) -> Iterator[slice]:
    """`updates` slices with (nearly) the same number of prompts; fewer where there are fewer prompts."""
    sizes = [len(list(group)) for _, group in groupby(rollouts, key=lambda rollout: id(rollout.prompt))]
    start = 0
    for index in range(min(updates, len(sizes))):
        first, last = (len(sizes) * k // min(updates, len(sizes)) for k in (index, index + 1))
        stop = start + sum(sizes[first:last])
        yield slice(start, stop)
        start = stop
