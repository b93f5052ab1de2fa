"""Divergences through the student's one forward pass: against plain transformers' whole distributions, in tiles and
micro-batches, with NaN outside the mask, with an empty one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from divergence_cases import CASES, Case
from tiny import load_tiny, mixed_samples, plain_distribution, random_rollouts, save_tiny
from torch import Tensor

from reopold_vl import divergence
from reopold_vl.collate import collate_rollouts
from reopold_vl.divergence import DivergenceLoss, divergences
from reopold_vl.models import VisionLanguageModel
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.types import Rollout

each_divergence = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionLanguageModel, LocalTeacher]:
    """A student and a teacher whose vocabulary is padded further."""
    root = tmp_path_factory.mktemp("pair")
    student = load_tiny(save_tiny(root / "student", "qwen2_5_vl", seed=0))
    teacher = load_tiny(save_tiny(root / "teacher", "qwen2_5_vl", seed=1, padded_vocab=13, hidden=48))
    return student, LocalTeacher(teacher, rows_at_once=4)


@pytest.fixture(scope="module")
def rollouts(pair: tuple[VisionLanguageModel, LocalTeacher]) -> list[Rollout]:
    student = pair[0]
    return random_rollouts(student, [student.encoder(sample) for sample in mixed_samples()], n=2, seed=5)


def plain_logprobs(model: VisionLanguageModel, rollout: Rollout, size: int) -> Tensor:
    """Plain transformers' view of the rollout's tokens, among the first `size` ids."""
    return plain_distribution(model.policy.model, rollout).logits[:, :size].log_softmax(-1)


def piece(
    pair: tuple[VisionLanguageModel, LocalTeacher],
    case: Case,
    rollouts: list[Rollout],
    *,
    denominator: float,
    change: Callable[[Tensor, Tensor], Tensor] = lambda values, mask: values,
) -> Tensor:
    student, teacher = pair
    batch = collate_rollouts(rollouts, pad_id=student.pad_id)
    mask = batch.mask & (batch.response_ids % 3 > 0)
    old = -3.0 - torch.cos(batch.response_ids.float())
    advantages = torch.sin(batch.response_ids.float())
    old, advantages = change(old, mask), change(advantages, mask)
    loss = DivergenceLoss(case.objective, teacher)(
        student.policy, batch, rollouts, old, advantages, mask, denominator=denominator
    )
    return loss.loss


def gradients(student: VisionLanguageModel) -> list[Tensor]:
    found = [weight.grad.clone() for weight in student.policy.parameters() if weight.grad is not None]
    student.policy.zero_grad(set_to_none=True)
    return found


@each_divergence
def test_through_the_policy_it_is_the_dense_loss_of_plain_transformers(pair: Any, rollouts: Any, case: Case) -> None:
    student, teacher = pair
    size = len(student.tokenizer)
    batch = collate_rollouts(rollouts, pad_id=student.pad_id)
    mask = batch.mask & (batch.response_ids % 3 > 0)
    old = -3.0 - torch.cos(batch.response_ids.float())
    wanted = torch.zeros(())
    for row, rollout in enumerate(rollouts):
        with torch.no_grad():
            q = plain_logprobs(teacher.model, rollout, size).exp()
            p = plain_logprobs(student, rollout, size).exp()
        for t in mask[row].nonzero()[:, 0].tolist():
            advantage = torch.sin(rollout.response_ids[t].float())
            wanted += case.dense(p[t], q[t], rollout.response_ids[t], old[row, t].exp(), advantage)
    found = piece(pair, case, rollouts, denominator=5.0)
    torch.testing.assert_close(found, wanted / 5, rtol=2e-4, atol=1e-5)
    student.policy.zero_grad(set_to_none=True)


@each_divergence
def test_tiles_and_micro_batches_sum_to_the_whole(
    pair: Any, rollouts: Any, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = pair[0]
    whole = piece(pair, case, rollouts, denominator=7.0)
    whole.backward()
    wanted = gradients(student)
    monkeypatch.setattr(divergence, "TILE_ROWS", 3)
    monkeypatch.setattr(divergence, "TILE_ELEMENTS", 1)
    parts = [piece(pair, case, rollouts[rows], denominator=7.0) for rows in (slice(0, 2), slice(2, 6), slice(6, 8))]
    for part in parts:
        part.backward()
    torch.testing.assert_close(sum(part.detach() for part in parts), whole.detach(), rtol=1e-4, atol=1e-5)
    found = gradients(student)
    assert len(found) == len(wanted) > 10
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@each_divergence
def test_what_stands_outside_the_mask_changes_nothing(pair: Any, rollouts: Any, case: Case) -> None:
    results = []
    for junk in (0.0, math.nan):
        loss = piece(
            pair, case, rollouts, denominator=7.0, change=lambda values, mask, junk=junk: values.where(mask, junk)
        )
        loss.backward()
        results.append((loss.detach(), gradients(pair[0])))
    (clean, wanted), (dirty, found) = results
    assert bool(torch.isfinite(clean)) and torch.equal(clean, dirty)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@each_divergence
def test_an_empty_mask_is_refused(pair: Any, rollouts: Any, case: Case) -> None:
    with pytest.raises(ValueError, match="denominator is 0"):
        piece(pair, case, rollouts, denominator=0)


def test_divergences_are_those_of_plain_transformers(pair: Any, rollouts: Any) -> None:
    student, teacher = pair
    size = len(student.tokenizer)
    found = divergences(student, teacher, rollouts, rows_at_once=3)
    for row, rollout in enumerate(rollouts):
        length = len(rollout.response_ids)
        with torch.no_grad():
            p, q = (plain_logprobs(model, rollout, size) for model in (student, teacher.model))
        torch.testing.assert_close(
            found[row, :length],
            torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1),
            rtol=1e-4,
            atol=1e-5,
        )
        assert not found[row, length:].any()
