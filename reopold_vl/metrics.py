"""Numbers about one step, named `area/name`, as the run log and the plots know them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reopold_vl.learn import LearnResult
from reopold_vl.types import Rollout, ScoredBatch, TokenSignal

IMPOSSIBLE = -999.0  # nats; a vLLM teacher's -inf comes as -1000, give or take the rounding
QUANTILES = {"p01": 0.01, "p10": 0.10, "p50": 0.50, "p90": 0.90}
# Nats; 1.72 is log(0.3) / 0.7, the floor of the paper's usual mixture. The same for all objectives and mixtures.
TAIL = {"below_1.72": -1.72, "below_5": -5.0, "below_10": -10.0}


def batch_metrics(batch: ScoredBatch, signal: TokenSignal) -> dict[str, float]:
    """Rewards and entropy in nats over response tokens; the shares of them in R's tail, and trained on."""
    rewards = batch.rewards[batch.mask].float()
    nan = int(rewards.isnan().sum())
    found: dict[str, float] = {}
    if rewards.numel():  # absent where no token of the step has a reward
        found["reward/mean"] = float(rewards.mean())
        found["reward/min"] = float(rewards.min())
        found |= {f"reward/{name}": _quantile(rewards, level) for name, level in QUANTILES.items()}
        found |= {f"reward/{name}": float((rewards < level).float().mean()) for name, level in TAIL.items()}
        found["student/entropy"] = float(batch.entropy[batch.mask].mean())
    return {
        **found,
        "reward/nan": nan / max(rewards.numel(), 1),
        "mask/kept": int(signal.mask.sum()) / max(int(batch.mask.sum()), 1),
        **_left_out(batch),
        **signal.metrics,
    }


def _left_out(batch: ScoredBatch) -> dict[str, float]:
    """Numbers of answers that the teacher could not score, and of tokens that it gives probability 0, where any."""
    found = {
        "teacher/dropped": int((~batch.mask.any(1)).sum()),
        "teacher/impossible": int((batch.teacher_logprobs[batch.mask] <= IMPOSSIBLE).sum()),
    }
    return {name: float(number) for name, number in found.items() if number}


def unscored_metrics(rollouts: Sequence[Rollout], batch: ScoredBatch) -> dict[str, float]:
    """The share of response tokens that the teacher gave no reward (no common span of text), where there are any."""
    tokens = sum(len(rollout.response_ids) for rollout in rollouts)
    left = tokens - int(batch.mask.sum())
    return {"teacher/unscored": left / tokens} if left else {}


def rollout_metrics(rollouts: Sequence[Rollout], correct: Sequence[bool]) -> dict[str, float]:
    """Lengths in tokens, their mean and sum; truncated, repeating and right answers as shares."""
    count, tokens = len(rollouts), sum(len(rollout.response_ids) for rollout in rollouts)
    return {
        "rollout/length": tokens / count,
        "rollout/tokens": float(tokens),
        "rollout/truncated": sum(rollout.finish_reason == "length" for rollout in rollouts) / count,
        "rollout/repetition": sum(repetition(rollout.response_ids.tolist()) for rollout in rollouts) / count,
        "rollout/accuracy": sum(correct) / count,
    }


def learn_metrics(result: LearnResult) -> dict[str, float]:
    """Means over the step's updates; absent where no update had a kept token."""
    metrics = {"optim/lr": result.lr, "optim/empty": float(result.empty), "ratio/max": result.ratio_max}
    if result.losses:
        metrics["loss"] = sum(result.losses) / len(result.losses)
    if result.grad_norms:
        metrics["optim/grad_norm"] = sum(result.grad_norms) / len(result.grad_norms)
    return metrics


def repetition(ids: Sequence[int], length: int = 8) -> float:
    """Share of the `length`-grams of an answer that have been there before: near 0 for prose, near 1 in a loop."""
    grams = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _quantile(values: Tensor, level: float) -> float:
    # torch.quantile refuses more than 2^24 values; the k-th value does not.
    rank = min(max(round(level * values.numel()), 1), values.numel())
    return float(values.kthvalue(rank).values)
