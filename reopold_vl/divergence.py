"""Both models' whole distributions at the same tokens, tile by tile: never a tensor of [tokens, vocabulary] for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from reopold_vl.collate import TokenBatch, collate_rollouts, moved, pad_right, prompt_groups, token_places
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives.divergences.parts import kl
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.types import Divergence, LossOutput, Rollout

# A loss over the vocabulary holds several tensors of a tile's size where a log-prob holds one (logprobs.TILE_ROWS).
TILE_ROWS = 32
TILE_ELEMENTS = 1 << 23
IMPOSSIBLE = -1e4  # nats: what a probability of 0 counts as; its exponential is 0


class TokenLosses(NamedTuple):
    """`loss`: nats, to be minimised; `logprobs`: log pi_theta of the token, to see how far the student has moved."""

    loss: Tensor
    logprobs: Tensor


@dataclass(frozen=True)
class TeacherSide:
    """A teacher's last hidden states of some tokens, and how its head makes log-probabilities of them."""

    model: VisionLanguageModel
    hidden: Float[Tensor, "tokens hidden"]

    @property
    def vocabulary(self) -> int:
        return self.model.policy.model.get_output_embeddings().weight.shape[0]

    @torch.no_grad()
    def logprobs(self, tokens: slice, size: int) -> Float[Tensor, "tokens vocab"]:
        """Of the first `size` ids, on the teacher's device."""
        head = self.model.policy.model.get_output_embeddings()
        with self.model.policy.autocast():
            return normalised(F.linear(self.hidden[tokens], head.weight, head.bias), size)


@dataclass(frozen=True)
class DivergenceLoss:
    """The loss of an objective of the second contract, with the teacher that it is taken to."""

    objective: Divergence
    teacher: LocalTeacher

    def __call__(
        self,
        module: nn.Module,
        batch: TokenBatch,
        rollouts: Sequence[Rollout],
        old_logprobs: Float[Tensor, "batch time"],
        advantages: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        *,
        denominator: float,
    ) -> LossOutput:
        """The sum of token_loss over `mask`, over `denominator`: losses of micro-batches add up to that of the whole.

        `module` is the student's wrapped policy, `batch` what it sees of `rollouts` (and of a filler behind them); the
        three tensors are in CPU memory.
        """
        if denominator <= 0:
            raise ValueError(f"denominator is {denominator}: the number of kept tokens must be positive")
        teacher = teacher_side(self.teacher, rollouts, mask[: len(rollouts)])
        device = batch.response_ids.device
        old = moved(old_logprobs[mask], device)
        read = partial(
            token_losses,
            teacher=teacher,
            objective=self.objective,
            old_logprobs=old,
            advantages=moved(advantages[mask], device),
        )
        found = module(batch, mask, read)
        loss = found.loss.sum() / denominator
        with torch.no_grad():
            ratio = (found.logprobs.flatten()[token_places(mask, device)] - old).exp()
            highest = ratio.max() if ratio.numel() else ratio.new_zeros(())
        return LossOutput(loss=loss, metrics={"loss": loss.detach(), "ratio/max": highest})


def token_losses(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    ids: Int[Tensor, " tokens"],
    *,
    teacher: TeacherSide,
    objective: Divergence,
    old_logprobs: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
) -> TokenLosses:
    """`objective.token_loss` of each token from the student's `hidden` states, under activation checkpointing.

    Where one model's vocabulary is padded further than the other's, both are cut to the common size.
    """
    if hidden.shape[0] == 0:
        empty = hidden.new_zeros(0, dtype=torch.float32) + hidden.sum() * 0.0  # keeps the graph connected
        return TokenLosses(empty, empty)
    size = min(weight.shape[0], teacher.vocabulary)

    def tile(hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: slice) -> tuple[Tensor, Tensor]:
        student = normalised(F.linear(hidden, weight, bias), size)
        here = ids[tokens]
        loss = objective.token_loss(
            student,
            teacher.logprobs(tokens, size).to(student.device),
            ids=here,
            old_logprobs=old_logprobs[tokens],
            advantages=advantages[tokens],
        )
        return loss, student.detach().gather(-1, here[:, None])[:, 0]

    tiles = tiles_of(len(ids), size)
    if torch.is_grad_enabled() and len(tiles) > 1:
        parts = [checkpoint(tile, hidden[tokens], weight, bias, tokens, use_reentrant=False) for tokens in tiles]
    else:
        parts = [tile(hidden[tokens], weight, bias, tokens) for tokens in tiles]
    losses, logprobs = zip(*parts, strict=True)
    return TokenLosses(torch.cat(losses), torch.cat(logprobs))


@torch.no_grad()
def divergences(
    student: VisionLanguageModel, teacher: LocalTeacher, rollouts: Sequence[Rollout], *, rows_at_once: int
) -> Float[Tensor, "batch time"]:
    """KL(pi_S || pi_T) in nats over the common vocabulary at each response token, on the CPU; zeros elsewhere."""
    found: list[Tensor] = []
    for piece in prompt_groups(rollouts, rows_at_once):
        own = rollouts[piece]
        batch = collate_rollouts(own, pad_id=student.pad_id).to(student.policy.device)
        mask = batch.host.mask
        side = teacher_side(teacher, own, mask)
        head = student.policy.model.get_output_embeddings()
        size = min(head.weight.shape[0], side.vocabulary)
        hidden, _ = student.policy.kept_states(batch, mask)
        values = torch.zeros(mask.shape)
        parts = []
        for tokens in tiles_of(len(hidden), size):
            with student.policy.autocast():
                ours = normalised(F.linear(hidden[tokens], head.weight, head.bias), size)
            parts.append(kl(ours, side.logprobs(tokens, size).to(ours.device)).cpu())
        found += list(values.masked_scatter(mask, torch.cat(parts)))
    return pad_right(found, 0.0)


@torch.no_grad()
def teacher_side(teacher: LocalTeacher, rollouts: Sequence[Rollout], keep: Bool[Tensor, "batch time"]) -> TeacherSide:
    """The teacher's states that predict the response tokens in `keep` (in CPU memory), row by row."""
    model = teacher.model
    batch = collate_rollouts(teacher.seen(rollouts), pad_id=model.pad_id).to(model.policy.device)
    return TeacherSide(model, model.policy.kept_states(batch, keep)[0])


def normalised(logits: Float[Tensor, "tokens vocab"], size: int) -> Float[Tensor, "tokens size"]:
    """fp32 log-probabilities among the first `size` ids, at least IMPOSSIBLE: 0 * -inf would be NaN in every sum."""
    return logits[:, :size].float().log_softmax(-1).clamp(min=IMPOSSIBLE)


def tiles_of(tokens: int, vocabulary: int) -> list[slice]:
    """Slices of so many tokens that their logits fit into a tile."""
    rows = max(TILE_ROWS, TILE_ELEMENTS // vocabulary)
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]
