"""Rollouts -> ScoredBatch: the student's and the teacher's log-probs of the same response tokens, without gradient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch

from reopold_vl.collate import micro_batches, pad_right
from reopold_vl.logprobs import TokenStats
from reopold_vl.models import VisionLanguageModel
from reopold_vl.sharding import Groups, collate_together, common_passes, forget_passes
from reopold_vl.spans import span_rewards
from reopold_vl.types import Rollout, ScoredBatch, TeacherScores


@torch.no_grad()
def score_tokens(model: VisionLanguageModel, rollouts: Sequence[Rollout], *, rows_at_once: int) -> TokenStats:
    """Log-probs and entropies [B, T] of all response tokens under `model`, on the CPU; zeros elsewhere.

    With a model that is cut up over processes all of them make as many passes as the one that has most to score.
    """
    found: list[torch.Tensor] = []
    pieces = micro_batches(rollouts, rows_at_once)
    passes: list[Groups | None] = [None] * len(pieces)
    if model.filler is not None:
        passes = common_passes(model.policy, model.filler, [[rollouts[row] for row in piece] for piece in pieces])
    for piece, groups in zip_longest(pieces, passes, fillvalue=None):
        own = [rollouts[row] for row in piece or []]
        batch = collate_together(own, groups, model.filler, pad_id=model.pad_id).to(model.policy.device)
        stats = model.policy(batch, batch.host.mask)
        found.append(torch.stack([stats.logprobs, stats.entropy]))
    if model.filler is not None:
        forget_passes(model.policy)
    if not rollouts:
        return TokenStats(torch.zeros(0, 0), torch.zeros(0, 0))
    everything = torch.cat([each.flatten() for each in found]).cpu()  # at once, after all passes
    rows: dict[int, torch.Tensor] = {}  # [2, time]; a piece is padded to its own longest answer, the whole to all's
    for piece, made, values in zip(pieces, found, everything.split([each.numel() for each in found]), strict=False):
        rows |= zip(piece, values.view(made.shape).unbind(1), strict=False)
    logprobs, entropy = ([rows[row][which] for row in range(len(rollouts))] for which in (0, 1))
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


def score(rollouts: Sequence[Rollout], student: TokenStats, teacher: TokenStats | TeacherScores) -> ScoredBatch:
    """Join both models' views; R_t = log pi_T - log pi_S, and 0 where there is no token.

    A teacher that scored spans of text gives each token its span's reward, and masks out tokens without a span.
    """
    mask = pad_right([torch.ones_like(rollout.response_ids, dtype=torch.bool) for rollout in rollouts], False)
    teacher_logprobs = teacher.logprobs
    if isinstance(teacher, TeacherScores) and teacher.spans is not None:
        mask = mask & (teacher.spans >= 0)
        teacher_logprobs = student.logprobs + span_rewards(student.logprobs, teacher.logprobs, teacher.spans)
    return ScoredBatch(
        old_logprobs=student.logprobs,
        teacher_logprobs=teacher_logprobs,
        entropy=student.entropy,
        rewards=torch.where(mask, teacher_logprobs - student.logprobs, 0.0),
        mask=mask,
    )
