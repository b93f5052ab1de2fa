"""The numbers of one step, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from reopold_vl.learn import LearnResult
from reopold_vl.metrics import batch_metrics, learn_metrics, repetition, rollout_metrics
from reopold_vl.objectives import Reopold, ReverseKL
from reopold_vl.types import FinishReason, Prompt, Rollout, ScoredBatch, VisualSample


def scored(rewards: list[list[float]], mask: list[list[bool]], entropy: float = 0.5) -> ScoredBatch:
    reward, keep = torch.tensor(rewards), torch.tensor(mask)
    return ScoredBatch(torch.zeros_like(reward), reward, torch.full_like(reward, entropy), reward, keep)


def test_reward_quantiles_by_hand() -> None:
    # 1..100 in random order over two rows; two more places hold nonsense outside the mask.
    values = torch.randperm(100, generator=torch.Generator().manual_seed(0)).float() + 1
    rewards = torch.cat([values, torch.tensor([1e9, math.nan])]).reshape(2, 51)
    mask = torch.ones(2, 51, dtype=torch.bool)
    mask[1, 49:] = False
    batch = ScoredBatch(torch.zeros(2, 51), rewards, torch.ones(2, 51), rewards, mask)
    metrics = batch_metrics(batch, ReverseKL()(batch, step=0))
    assert metrics["reward/mean"] == pytest.approx(50.5)
    assert [metrics[f"reward/{name}"] for name in ("p01", "p10", "p50", "p90")] == [1, 10, 50, 90]
    assert metrics["student/entropy"] == 1.0 and metrics["mask/kept"] == 1.0


def test_quantiles_of_a_single_token() -> None:
    batch = scored([[-0.25, 7.0]], [[True, False]])
    metrics = batch_metrics(batch, ReverseKL()(batch, step=0))
    assert {metrics[f"reward/{name}"] for name in ("p01", "p10", "p50", "p90")} == {-0.25}


def test_the_tail_of_rewards_by_hand() -> None:
    batch = scored([[-11.0, -10.0, -5.5, -1.73], [-1.71, 0.0, -99.0, -99.0]], [[True] * 4, [True, True, False, False]])
    metrics = batch_metrics(batch, ReverseKL()(batch, step=0))
    assert [metrics[f"reward/below_{level}"] for level in ("10", "5", "1.72")] == pytest.approx([1 / 6, 3 / 6, 4 / 6])
    assert metrics["reward/min"] == -11.0


def test_kept_and_clipped_by_hand() -> None:
    batch = scored([[0.0, -1.0, -5.0], [-3.0, 0.5, -9.0]], [[True, True, True], [True, True, False]])
    metrics = batch_metrics(batch, Reopold(mixture=0.3, switch_step=2)(batch, step=0))  # floor -1.72
    assert metrics["reopold/floor"] == pytest.approx(math.log(0.3) / 0.7)
    assert metrics["reopold/clipped"] == pytest.approx(2 / 5)
    assert metrics["mask/kept"] == pytest.approx(3 / 5)
    assert metrics["reopold/phase"] == 0.0
    assert batch_metrics(batch, Reopold(switch_step=2)(batch, step=2))["reopold/phase"] == 1.0


def rollout(ids: list[int], reason: FinishReason) -> Rollout:
    prompt = Prompt(VisualSample("a", "?"), torch.tensor([1]), torch.tensor([0]))
    empty = torch.zeros(len(ids))
    return Rollout(prompt, torch.tensor(ids), empty, empty, reason)


def test_rollout_metrics_by_hand() -> None:
    rollouts = [rollout([1, 2, 3], "stop"), rollout([5] * 9, "length"), rollout([4], "stop"), rollout([4] * 3, "stop")]
    metrics = rollout_metrics(rollouts, [True, False, False, True])
    assert metrics == {
        "rollout/length": 4.0,
        "rollout/tokens": 16.0,
        "rollout/truncated": 0.25,
        "rollout/repetition": 0.5 / 4,  # nine equal tokens hold two equal 8-grams
        "rollout/accuracy": 0.5,
    }


def test_repetition_by_hand() -> None:
    assert repetition([]) == repetition(list(range(5))) == repetition([1] * 7) == 0.0  # no 8-gram at all
    assert repetition(list(range(100))) == 0.0
    assert repetition([7] * 17) == pytest.approx(9 / 10)  # ten 8-grams, one distinct
    assert repetition([1, 2, 3] * 4, length=3) == pytest.approx(1 - 3 / 10)  # 123 231 312 among ten
    assert repetition([1, 2, 1, 2, 9], length=2) == pytest.approx(1 / 4)


def test_learn_metrics_are_means_over_updates() -> None:
    result = LearnResult(lr=0.1, losses=[1.0, 3.0], grad_norms=[0.5, 1.5], ratio_max=1.25, empty=1, skipped=0)
    assert learn_metrics(result) == {
        "optim/lr": 0.1,
        "optim/empty": 1.0,
        "ratio/max": 1.25,
        "loss": 2.0,
        "optim/grad_norm": 1.0,
    }
    nothing = learn_metrics(LearnResult(lr=0.1, empty=2))
    assert "loss" not in nothing and "optim/grad_norm" not in nothing
