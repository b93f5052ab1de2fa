"""Five tests per objective (by hand, NaN outside the mask, score function, micro-batches, empty mask), and its own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reopold_vl.loss import policy_gradient_loss
from reopold_vl.objectives import OBJECTIVES, Reopold, ReverseKL
from reopold_vl.objectives.reopold import floor, top_entropy
from reopold_vl.types import ScoredBatch, TokenSignal

T, F = True, False
PAD = 7.5  # what stands outside the mask

# Seven tokens. Below log(0.3) / 0.7 = -1.720: two rewards; below log(0.3 / 0.7) = -0.847: four.
REWARDS = torch.tensor([[0.4, -1.0, -2.0, PAD], [-0.6, -1.7, -3.0, 0.1]])
ENTROPY = torch.tensor([[0.2, 1.5, 2.0, PAD], [0.9, 0.1, 1.9, 0.3]])
MASK = torch.tensor([[T, T, T, F], [T, T, T, T]])

ALL = [[T, T, T, F], [T, T, T, T]]
ABOVE_BOUND = [[T, T, F, F], [T, T, F, T]]
ABOVE_ODDS = [[T, F, F, F], [T, F, F, T]]
TOP_3 = [[F, T, T, F], [F, F, T, F]]  # ceil(0.4 * 7) = 3: entropies 2.0, 1.9, 1.5
RAW = [[0.4, -1.0, -2.0], [-0.6, -1.7, -3.0, 0.1]]
BOUND = [[0.4, -1.0, -1.719961], [-0.6, -1.7, -1.719961, 0.1]]
ODDS = [[0.4, -0.847298, -0.847298], [-0.6, -0.847298, -0.847298, 0.1]]

# name: objective, step, advantages, mask, loss at rho = 1 (minus the mean of A over the mask)
CASES: dict[str, tuple[Any, int, list[list[float]], list[list[bool]], float]] = {
    "reverse_kl": (ReverseKL(), 0, RAW, ALL, 7.8 / 7),
    "exploration": (Reopold(0.3, 0.4, switch_step=20), 19, BOUND, ABOVE_BOUND, 2.8 / 5),
    "refinement": (Reopold(0.3, 0.4, switch_step=20), 20, BOUND, TOP_3, 4.439922 / 3),
    "refinement_from_the_start": (Reopold(0.3, 0.4, switch_step=0), 0, BOUND, TOP_3, 4.439922 / 3),
    "exploration_for_ever": (Reopold(0.3, 0.4, switch_step=None), 10**6, BOUND, ABOVE_BOUND, 2.8 / 5),
    "exploration_odds": (Reopold(0.3, 0.4, 20, "odds"), 0, ODDS, ABOVE_ODDS, 0.1 / 3),
    "refinement_odds": (Reopold(0.3, 0.4, 20, "odds"), 20, ODDS, TOP_3, 0.847298),
}
each_objective = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def scored(rewards: Tensor, entropy: Tensor, mask: Tensor) -> ScoredBatch:
    old = torch.full_like(rewards, -1.0)
    return ScoredBatch(old, old + rewards, entropy, rewards, mask)


def example() -> ScoredBatch:
    return scored(REWARDS, ENTROPY, MASK)


def loss_of(signal: TokenSignal, logprobs: Tensor, old: Tensor) -> Tensor:
    kept = int(signal.mask.sum())
    return policy_gradient_loss(logprobs, old, signal.advantages, signal.mask, denominator=kept).loss


def test_every_objective_is_tested_here() -> None:
    assert {type(case[0]) for case in CASES.values()} == set(OBJECTIVES.values())


@each_objective
def test_worked_example(case: tuple) -> None:
    objective, step, advantages, mask, loss = case
    batch = example()
    signal = objective(batch, step=step)
    assert signal.mask.tolist() == mask
    assert signal.advantages[MASK].tolist() == pytest.approx([*advantages[0], *advantages[1]], abs=1e-6)
    assert float(loss_of(signal, batch.old_logprobs, batch.old_logprobs)) == pytest.approx(loss, abs=1e-6)
    # All probabilities doubled since the rollout: rho = 2 doubles the surrogate.
    doubled = loss_of(signal, batch.old_logprobs + math.log(2), batch.old_logprobs)
    assert float(doubled) == pytest.approx(2 * loss, abs=1e-5)


@each_objective
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_what_stands_outside_the_mask_changes_nothing(case: tuple, junk: float) -> None:
    objective, step = case[:2]
    clean = example()
    fields = ("old_logprobs", "teacher_logprobs", "entropy", "rewards")
    dirty = replace(clean, **{name: torch.where(MASK, getattr(clean, name), junk) for name in fields})
    results = []
    for batch in (clean, dirty):
        signal = objective(batch, step=step)
        logprobs = torch.where(MASK, torch.linspace(-2, -1, 8).reshape(2, 4), batch.old_logprobs).requires_grad_()
        loss = loss_of(signal, logprobs, batch.old_logprobs)
        loss.backward()
        results.append((signal, loss, logprobs.grad))
    (signal, loss, gradient), (other, other_loss, other_gradient) = results
    assert torch.equal(signal.mask, other.mask)
    assert torch.equal(signal.advantages[MASK], other.advantages[MASK])
    assert signal.metrics == other.metrics
    assert torch.isfinite(loss) and torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)
    assert not other_gradient[~MASK].any()


@each_objective
@pytest.mark.parametrize("moved", [0.0, 0.3], ids=["on_policy", "after_an_update"])
def test_gradient_is_the_score_function_estimator(case: tuple, moved: float) -> None:
    """d loss / d logits = -(1 / sum M) sum_t rho_t A_t M_t (onehot(o_t) - pi), softmax's own score, in closed form."""
    objective, step = case[:2]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    tokens = torch.randint(0, 5, (2, 4), generator=generator)
    logprobs = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    old = logprobs.detach() - moved * torch.randn(2, 4, generator=generator, dtype=torch.float64)
    batch = ScoredBatch(old, old + REWARDS, ENTROPY.double(), REWARDS.double(), MASK)
    signal = objective(batch, step=step)
    loss_of(signal, logprobs, old).backward()

    pi = logits.detach().softmax(-1)
    ratio = pi.gather(-1, tokens[..., None])[..., 0] / old.exp()
    score = torch.nn.functional.one_hot(tokens, 5) - pi
    weight = torch.where(signal.mask, signal.advantages * ratio, 0.0) / signal.mask.sum()
    torch.testing.assert_close(logits.grad, -weight[..., None] * score, rtol=1e-6, atol=1e-9)


@each_objective
def test_micro_batches_sum_to_the_whole(case: tuple) -> None:
    objective, step = case[:2]
    generator = torch.Generator().manual_seed(1)
    rewards, entropy, old = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64).unbind()
    mask = torch.rand(6, 5, generator=generator) < 0.8
    batch = ScoredBatch(old, old + rewards, entropy.abs(), rewards, mask)
    signal = objective(batch, step=step)
    logprobs = (old + 0.1 * torch.randn(6, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    whole = loss_of(signal, logprobs, old)
    (whole_gradient,) = torch.autograd.grad(whole, logprobs)

    pieces = torch.zeros((), dtype=torch.float64)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        part = policy_gradient_loss(
            logprobs[rows],
            old[rows],
            signal.advantages[rows],
            signal.mask[rows],
            denominator=int(signal.mask.sum()),
        ).loss
        part.backward()
        pieces = pieces + part.detach()
    torch.testing.assert_close(pieces, whole.detach())
    torch.testing.assert_close(logprobs.grad, whole_gradient)


@each_objective
def test_empty_mask_is_a_no_op_and_no_nan(case: tuple) -> None:
    objective, step = case[:2]
    batch = replace(example(), mask=torch.zeros_like(MASK))
    signal = objective(batch, step=step)
    assert not signal.mask.any()
    assert all(math.isfinite(value) for value in signal.metrics.values())
    logprobs = batch.old_logprobs.clone().requires_grad_()
    with pytest.raises(ValueError, match="denominator is 0"):
        loss_of(signal, logprobs, batch.old_logprobs)
    loss = policy_gradient_loss(logprobs, batch.old_logprobs, signal.advantages, signal.mask, denominator=1).loss
    loss.backward()
    assert float(loss.detach()) == 0 and logprobs.grad is not None and not logprobs.grad.any()


@each_objective
def test_permuted_rows_permute_the_signal(case: tuple) -> None:
    objective, step = case[:2]
    generator = torch.Generator().manual_seed(2)
    rewards = torch.randn(7, 6, generator=generator) * 2
    entropy = torch.randint(0, 4, (7, 6), generator=generator) / 2  # many ties
    mask = torch.rand(7, 6, generator=generator) < 0.7
    order = torch.randperm(7, generator=generator)
    signal = objective(scored(rewards, entropy, mask), step=step)
    permuted = objective(scored(rewards[order], entropy[order], mask[order]), step=step)
    assert torch.equal(permuted.mask, signal.mask[order])
    assert torch.equal(permuted.advantages, signal.advantages[order])
    assert permuted.metrics == signal.metrics


@each_objective
def test_the_signal_carries_no_gradient_and_leaves_the_batch_alone(case: tuple) -> None:
    objective, step = case[:2]
    batch = example()
    before = [getattr(batch, name).clone() for name in ("old_logprobs", "entropy", "rewards", "mask")]
    signal = objective(batch, step=step)
    assert not signal.advantages.requires_grad
    after = [getattr(batch, name) for name in ("old_logprobs", "entropy", "rewards", "mask")]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_expected_gradient_is_that_of_reverse_kl() -> None:
    """Remark 3.1: with R held constant, E_pi[R grad log pi] = -grad KL(pi_S || pi_T).

    The expectation is exact: the student's probabilities are 1/4, 1/4, 1/2 and 5/8, 2/8, 1/8, and eight rollouts hold
    each token in just these proportions, in two states (the two columns).
    """
    probabilities = torch.tensor([[2.0, 2.0, 4.0], [5.0, 2.0, 1.0]], dtype=torch.float64) / 8
    tokens = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0], [2, 0], [2, 1], [2, 1], [2, 2]])
    teacher = torch.tensor([[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64).log()
    logits = probabilities.log().requires_grad_()
    student = logits.log_softmax(-1)

    rows = torch.arange(2)
    logprobs, teacher_logprobs = student[rows, tokens], teacher[rows, tokens]
    old = logprobs.detach()
    batch = ScoredBatch(old, teacher_logprobs, -old, teacher_logprobs - old, torch.ones(8, 2, dtype=torch.bool))
    signal = ReverseKL()(batch, step=0)
    loss = policy_gradient_loss(logprobs, old, signal.advantages, signal.mask, denominator=8).loss
    (estimated,) = torch.autograd.grad(loss, logits, retain_graph=True)
    divergence = (student.exp() * (student - teacher)).sum()
    (exact,) = torch.autograd.grad(divergence, logits)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(estimated, exact)


def test_reopold_without_floor_and_selection_is_reverse_kl() -> None:
    batch, plain = example(), ReverseKL()(example(), step=0)
    for objective in (Reopold(1e-300, 1.0, switch_step=0), Reopold(1e-300, 0.2, switch_step=None)):
        signal = objective(batch, step=0)
        assert torch.equal(signal.mask, plain.mask)
        assert torch.equal(signal.advantages, plain.advantages)


def test_floor_values() -> None:
    assert floor(0.3) == pytest.approx(-1.720, abs=5e-4)
    assert floor(0.1) == pytest.approx(-2.558, abs=5e-4)
    assert floor(0.3, "odds") == pytest.approx(-0.847, abs=5e-4)
    assert floor(0.5, "odds") == 0


@pytest.mark.parametrize("mixture", [0.05, 0.3, 0.8])
def test_the_floor_bounds_the_mixture_reward(mixture: float) -> None:
    """Where the floor comes from: log(lambda pi_S + (1-lambda) pi_T) - log pi_S >= (1-lambda) max(R, floor)."""
    rewards = torch.linspace(-12, 12, 97, dtype=torch.float64)
    mixed = torch.log(mixture + (1 - mixture) * rewards.exp())
    assert bool((mixed >= (1 - mixture) * rewards.clamp(min=floor(mixture)) - 1e-12).all())
    assert float(mixed.min()) == pytest.approx((1 - mixture) * floor(mixture), abs=1e-3)


def test_a_high_entropy_token_below_the_floor_is_kept_at_the_floor() -> None:
    rewards, entropy = torch.tensor([[-9.0, -1.0, 0.5, -0.2]]), torch.tensor([[3.0, 1.0, 0.5, 0.1]])
    batch = scored(rewards, entropy, torch.ones(1, 4, dtype=torch.bool))
    refined = Reopold(0.3, 0.25, switch_step=5)(batch, step=5)
    assert refined.mask.tolist() == [[T, F, F, F]]
    assert float(refined.advantages[0, 0]) == pytest.approx(floor(0.3))
    explored = Reopold(0.3, 0.25, switch_step=5)(batch, step=4)
    assert explored.mask.tolist() == [[F, T, T, T]]


def test_a_token_that_the_teacher_excludes_is_clipped_not_infinite() -> None:
    rewards = torch.tensor([[-math.inf, -9999.0, 0.5]])
    batch = scored(rewards, torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    signal = Reopold(0.3, 1.0, switch_step=0)(batch, step=0)
    assert signal.advantages[0].tolist() == pytest.approx([floor(0.3), floor(0.3), 0.5])


def test_metrics_say_floor_share_clipped_and_phase() -> None:
    objective = Reopold(0.3, 0.4, switch_step=20)
    explored, refined = objective(example(), step=0).metrics, objective(example(), step=20).metrics
    assert explored == {
        "reopold/floor": pytest.approx(-1.719961, abs=1e-6),
        "reopold/clipped": pytest.approx(2 / 7),
        "reopold/phase": 0.0,
    }
    assert refined == {**explored, "reopold/phase": 1.0}


def test_the_entropy_threshold_is_of_the_whole_batch() -> None:
    """Row 0 holds all the uncertain tokens; taken row by row, half of each row would be kept."""
    entropy = torch.tensor([[2.0, 2.1, 2.2, 2.3], [0.1, 0.2, 0.3, 0.4]])
    mask = torch.ones(2, 4, dtype=torch.bool)
    assert top_entropy(entropy, mask, 0.5).tolist() == [[T, T, T, T], [F, F, F, F]]
    by_row = torch.cat([top_entropy(entropy[[row]], mask[[row]], 0.5) for row in (0, 1)])
    assert by_row.sum() == 4 and by_row[1].any()


def test_ties_at_the_threshold_are_all_kept() -> None:
    entropy = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0]])
    mask = torch.tensor([[T, T, T, T, F]])
    assert top_entropy(entropy, mask, 0.5).tolist() == [[F, T, T, T, F]]  # ceil(0.5 * 4) = 2, and one tie


@pytest.mark.parametrize(
    ("share", "tokens", "kept"),
    [
        (0.07, 100, 7),  # 0.07 * 100 = 7.000000000000001
        (0.29, 100, 29),  # 28.999999999999996
        (0.2, 35, 7),
        (0.2, 36, 8),
        (0.2, 1, 1),
        (1e-6, 100, 1),
        (1.0, 100, 100),
        (0.55, 100, 55),  # 55.00000000000001
    ],
)
def test_exactly_ceil_of_share_times_tokens_are_kept(share: float, tokens: int, kept: int) -> None:
    entropy = torch.randperm(tokens, generator=torch.Generator().manual_seed(0)).float()[None]
    chosen = top_entropy(entropy, torch.ones(1, tokens, dtype=torch.bool), share)
    assert int(chosen.sum()) == kept
    assert sorted(entropy[chosen].tolist()) == list(range(tokens - kept, tokens))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": 0.0}, r"objective\.mixture .*is 0\.0: allowed is 0 < mixture < 1"),
        ({"mixture": 1.0}, r"objective\.mixture .*is 1\.0: allowed is 0 < mixture < 1"),
        ({"mixture": -0.3}, r"objective\.mixture .*is -0\.3: allowed"),
        ({"mixture": math.nan}, r"objective\.mixture .*is nan: allowed"),
        ({"entropy_share": 0.0}, r"objective\.entropy_share .*is 0\.0: allowed is 0 < share <= 1"),
        ({"entropy_share": 1.5}, r"objective\.entropy_share .*is 1\.5: allowed is 0 < share <= 1"),
        ({"entropy_share": math.nan}, r"objective\.entropy_share .*is nan: allowed"),
        ({"switch_step": -1}, r"objective\.switch_step is -1: allowed is 0 or more"),
        ({"mixture": 0.6, "floor_form": "odds"}, r"objective\.mixture is 0\.6: .*odds.*0\.5"),
    ],
)
def test_values_out_of_range_name_field_value_and_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reopold(**settings)
