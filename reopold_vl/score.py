"""Rollouts -> ScoredBatch: the student's and the teacher's log-probs of the same response tokens, without gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from reopold_vl.collate import collate_rollouts, pad_right, prompt_groups
from reopold_vl.logprobs import TokenStats
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import Prompt, Rollout, ScoredBatch


@torch.no_grad()
def score_tokens(model: VisionLanguageModel, rollouts: Sequence[Rollout], *, rows_at_once: int) -> TokenStats:
    """Log-probs and entropies [B, T] of all response tokens under `model`, on the CPU; zeros elsewhere."""
    logprobs: list[torch.Tensor] = []
    entropy: list[torch.Tensor] = []
    for piece in prompt_groups(rollouts, rows_at_once):
        batch = collate_rollouts(rollouts[piece], pad_id=model.pad_id).to(model.policy.device)
        stats = model.policy(batch, batch.mask)
        logprobs += list(stats.logprobs.cpu())
        entropy += list(stats.entropy.cpu())
    # Pieces are padded to their own longest answer, the whole to the longest of all.
    return TokenStats(pad_right(logprobs, 0.0), pad_right(entropy, 0.0))


def sampled_tokens(rollouts: Sequence[Rollout]) -> TokenStats:
    """What an exact engine already knows of the student: no second pass needed."""
    return TokenStats(
        pad_right([rollout.logprobs for rollout in rollouts], 0.0),
        pad_right([rollout.entropy for rollout in rollouts], 0.0),
    )


def engine_gaps(rollouts: Sequence[Rollout], logprobs: torch.Tensor) -> torch.Tensor:
    """|scored - sampled| of all response tokens, in nats, one vector [tokens]; `logprobs` [B, T] is the scored side.

    A tensor rather than a number, because Python's max would drop a NaN that stands behind a number.
    """
    rows = zip(rollouts, logprobs, strict=True)
    return torch.cat([(row[: len(rollout.logprobs)] - rollout.logprobs).abs() for rollout, row in rows])


def as_seen_by(model: VisionLanguageModel, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The same answers to prompts that `model`'s own processor encoded (other patch size, other normalisation)."""
    seen: dict[int, Prompt] = {}
    for rollout in rollouts:
        if id(rollout.prompt) not in seen:
            seen[id(rollout.prompt)] = model.encoder(rollout.prompt.sample)
    return [replace(rollout, prompt=seen[id(rollout.prompt)]) for rollout in rollouts]


def score(rollouts: Sequence[Rollout], student: TokenStats, teacher: TokenStats) -> ScoredBatch:
    """Join both models' views; R_t = log pi_T - log pi_S, and 0 where there is no token."""
    mask = pad_right([torch.ones_like(rollout.response_ids, dtype=torch.bool) for rollout in rollouts], False)
    return ScoredBatch(
        old_logprobs=student.logprobs,
        teacher_logprobs=teacher.logprobs,
        entropy=student.entropy,
        rewards=torch.where(mask, teacher.logprobs - student.logprobs, 0.0),
        mask=mask,
    )
