"""The gradient pass: micro-batches, several updates a batch, and steps that must not happen."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import plain_distribution, random_rollouts
from torch import Tensor

from reopold_vl.collate import TokenBatch
from reopold_vl.learn import LearnResult, learn, minibatches
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives import Reopold, ReverseKL
from reopold_vl.optim import build_scheduler
from reopold_vl.policy import Policy
from reopold_vl.score import score, score_tokens
from reopold_vl.sharding import alone
from reopold_vl.types import Prompt, Rollout, ScoredBatch, TokenSignal

# A schedule goes on where an update is skipped, before the first one as well; torch warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


@pytest.fixture(scope="module")
def rollouts(vlm: VisionLanguageModel, prompts: list[Prompt]) -> list[Rollout]:
    return random_rollouts(vlm, prompts, n=2, seed=7)


@pytest.fixture(scope="module")
def scored(vlm: VisionLanguageModel, rollouts: list[Rollout]) -> ScoredBatch:
    """Rewards of a made-up teacher; the student's own log-probs are true, so that rho starts at 1."""
    student = score_tokens(vlm, rollouts, rows_at_once=8)
    noise = torch.randn(student.logprobs.shape, generator=torch.Generator().manual_seed(8))
    return score(rollouts, student, student._replace(logprobs=student.logprobs + 1.5 * noise))


SIGNALS = {"reverse_kl": ReverseKL(), "refinement": Reopold(0.3, 0.3, switch_step=0)}


def run(
    vlm: VisionLanguageModel,
    rollouts: Sequence[Rollout],
    scored: ScoredBatch,
    signal: TokenSignal,
    *,
    updates: int = 1,
    rows_at_once: int = 100,
    lr: float = 0.05,
    max_grad_norm: float = 1e9,
) -> tuple[Policy, LearnResult, Any]:
    """Learn on a copy by plain gradient descent; (the copy, what happened, the scheduler)."""
    policy = copy.deepcopy(vlm.policy)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=lr)
    scheduler = build_scheduler(optimizer, name="constant", warmup_updates=0, updates=10)
    result = learn(
        alone(policy),
        rollouts,
        scored,
        signal,
        optimizer=optimizer,
        scheduler=scheduler,
        updates=updates,
        rows_at_once=rows_at_once,
        max_grad_norm=max_grad_norm,
        pad_id=vlm.pad_id,
    )
    assert all(parameter.grad is None for parameter in policy.parameters())
    return policy, result, scheduler


def distance(one: Policy, other: Policy) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).abs().max().detach()) for a, b in pairs)


def test_an_update_is_the_gradient_of_plain_transformers(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch
) -> None:
    signal = SIGNALS["refinement"](scored, step=0)
    policy, result, _ = run(vlm, rollouts, scored, signal, rows_at_once=2)

    reference = copy.deepcopy(vlm.policy)
    total: Tensor = torch.zeros(())
    for row, rollout in enumerate(rollouts):
        length = len(rollout.response_ids)
        logprobs = plain_distribution(reference.model, rollout).log_prob(rollout.response_ids)
        ratio = (logprobs - scored.old_logprobs[row, :length]).exp()
        total = total - (ratio * signal.advantages[row, :length])[signal.mask[row, :length]].sum()
    loss = total / signal.mask.sum()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in reference.parameters() if p.grad is not None])
    assert result.losses == [pytest.approx(float(loss.detach()), rel=1e-4)]
    assert result.grad_norms == [pytest.approx(float(norm), rel=1e-4)]
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    assert distance(policy, vlm.policy) > 1e-3
    assert distance(policy, reference) < 1e-6


@pytest.mark.parametrize("objective", SIGNALS.values(), ids=SIGNALS.keys())
@pytest.mark.parametrize("rows_at_once", [1, 3, 4])
def test_micro_batches_do_not_change_the_update(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch, objective: Any, rows_at_once: int
) -> None:
    signal = objective(scored, step=0)
    whole, _, _ = run(vlm, rollouts, scored, signal)
    cut, result, _ = run(vlm, rollouts, scored, signal, rows_at_once=rows_at_once)
    assert distance(whole, vlm.policy) > 1e-3
    assert distance(whole, cut) < 1e-5 * distance(whole, vlm.policy)
    assert len(result.losses) == 1


def spied(monkeypatch: pytest.MonkeyPatch) -> list[TokenBatch]:
    """The batches that the policy is asked for from now on."""
    seen: list[TokenBatch] = []
    plain = Policy.forward

    def forward(self: Policy, batch: TokenBatch, keep: Tensor) -> Any:
        seen.append(batch)
        return plain(self, batch, keep)

    monkeypatch.setattr(Policy, "forward", forward)
    return seen


def test_two_updates_take_disjoint_halves_and_leave_the_policy_of_the_rollouts(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = ReverseKL()(scored, step=0)
    _, once, _ = run(vlm, rollouts, scored, signal)
    assert once.ratio_max == pytest.approx(1.0, abs=1e-4)
    seen = spied(monkeypatch)
    policy, twice, scheduler = run(vlm, rollouts, scored, signal, updates=2)
    assert twice.ratio_max > 1.01  # the second half is scored by a student that has moved
    assert len(twice.losses) == len(twice.grad_norms) == 2 and scheduler.last_epoch == 2
    answers = [[row[m].tolist() for row, m in zip(batch.response_ids, batch.mask, strict=True)] for batch in seen]
    assert answers[0] + answers[1] == [rollout.response_ids.tolist() for rollout in rollouts]
    assert distance(policy, vlm.policy) > 1e-3


def test_answers_are_read_up_to_their_last_kept_token(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = ReverseKL()(scored, step=0)
    mask = signal.mask.clone()
    mask[:, 2:] = False
    mask[1] = False  # nothing is kept of it: it is not read at all
    seen = spied(monkeypatch)
    run(vlm, rollouts, scored, replace(signal, mask=mask))
    answers = [row[m].tolist() for batch in seen for row, m in zip(batch.response_ids, batch.mask, strict=True)]
    assert answers == [rollout.response_ids[:2].tolist() for row, rollout in enumerate(rollouts) if row != 1]


def test_each_update_is_divided_by_its_own_kept_tokens(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch
) -> None:
    """At rho = 1 the first update's loss is minus the mean reward of its own half."""
    signal = ReverseKL()(scored, step=0)
    _, result, _ = run(vlm, rollouts, scored, signal, updates=2)
    first = slice(0, 4)
    expected = -float(scored.rewards[first][scored.mask[first]].mean())
    assert result.losses[0] == pytest.approx(expected, abs=1e-5)


def test_updates_go_up_the_rewarded_and_down_the_punished(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch
) -> None:
    signal = ReverseKL()(scored, step=0)
    policy, _, _ = run(vlm, rollouts, scored, signal, lr=0.01)
    moved = score_tokens(replace(vlm, policy=policy), rollouts, rows_at_once=8).logprobs - scored.old_logprobs
    assert float((moved * scored.rewards)[scored.mask].sum()) > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_skipped(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch, bad: float
) -> None:
    signal = ReverseKL()(scored, step=0)
    advantages = signal.advantages.clone()
    advantages[0, 0] = bad
    policy, result, scheduler = run(vlm, rollouts, scored, replace(signal, advantages=advantages))
    assert result.skipped == 1 and result.grad_norms == [] and scheduler.last_epoch == 1
    assert distance(policy, vlm.policy) == 0


def test_a_skipped_update_does_not_spoil_the_next(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch
) -> None:
    signal = ReverseKL()(scored, step=0)
    advantages = signal.advantages.clone()
    advantages[0, 0] = math.nan  # the first half
    policy, result, _ = run(vlm, rollouts, scored, replace(signal, advantages=advantages), updates=2)
    second = signal.mask.clone()
    second[:4] = False
    alone, _, _ = run(vlm, rollouts, scored, replace(signal, mask=second))
    assert result.skipped == 1 and len(result.grad_norms) == 1
    assert distance(policy, alone) < 1e-6 and distance(policy, vlm.policy) > 1e-3


def test_an_empty_mask_is_a_no_op(vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch) -> None:
    signal = replace(ReverseKL()(scored, step=0), mask=torch.zeros_like(scored.mask))
    policy, result, scheduler = run(vlm, rollouts, scored, signal)
    assert result == LearnResult(lr=result.lr, empty=1) and scheduler.last_epoch == 1
    assert distance(policy, vlm.policy) == 0


def test_the_gradient_is_clipped_to_its_norm(
    vlm: VisionLanguageModel, rollouts: list[Rollout], scored: ScoredBatch
) -> None:
    signal = ReverseKL()(scored, step=0)
    policy, result, _ = run(vlm, rollouts, scored, signal, lr=1.0, max_grad_norm=0.01)
    assert result.grad_norms[0] > 0.1  # before clipping
    steps = [a - b for a, b in zip(policy.parameters(), vlm.policy.parameters(), strict=True)]
    assert float(torch.nn.utils.get_total_norm(steps).detach()) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize(("updates", "sizes"), [(1, [8]), (2, [4, 4]), (3, [2, 2, 4]), (4, [2] * 4), (9, [2] * 4)])
def test_minibatches_never_part_a_prompt(rollouts: list[Rollout], updates: int, sizes: list[int]) -> None:
    shares = list(minibatches(rollouts, updates))
    assert [share.stop - share.start for share in shares] == sizes
    assert [index for share in shares for index in range(share.start, share.stop)] == list(range(8))
