"""Objectives that must coincide, and expectations that must not move: by enumeration over a small vocabulary."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from objective_cases import example, loss_of, random_batch
from torch import Tensor

from reopold_vl.objectives import OBJECTIVES, ReverseKL
from reopold_vl.objectives.divergences.aopd import AOPD
from reopold_vl.objectives.divergences.eopd import EOPD
from reopold_vl.objectives.divergences.gkd import GKD
from reopold_vl.objectives.divergences.topk_reverse_kl import TopKReverseKL
from reopold_vl.objectives.divergences.tropd import TrOPD
from reopold_vl.objectives.grpo import GRPO
from reopold_vl.objectives.sft import SFT
from reopold_vl.objectives.va_opd import VAOPD, answer_shares, token_shares
from reopold_vl.objectives.verifier import VerifierMix
from reopold_vl.objectives.vopd import VOPD
from reopold_vl.types import ScoredBatch


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reopold", {"mixture": 1e-300, "entropy_share": 1.0, "switch_step": 0}),
        ("discounted", {"gamma": 0.0}),
        ("iw_opd", {"strength": 0.0}),
        ("exopd", {"extrapolation": 1.0}),
        ("tip", {"share": 1.0}),
        ("vgs", {"gamma": 0.0, "prior_weight": 0.0, "scale": 1.0}),
    ],
)
def test_at_the_end_of_its_range_it_is_reverse_kl(name: str, settings: dict[str, Any]) -> None:
    for batch in (example(), random_batch(8, 6, seed=0)):
        signal, plain = OBJECTIVES[name](**settings)(batch, step=0), ReverseKL()(batch, step=0)
        assert torch.equal(signal.mask, plain.mask)
        assert torch.equal(signal.advantages[plain.mask], plain.advantages[plain.mask])


def test_exopd_with_the_teacher_as_reference_is_reverse_kl() -> None:
    batch = example()
    signal = OBJECTIVES["exopd"]()(replace(batch, reference_logprobs=batch.teacher_logprobs), step=0)
    assert torch.equal(signal.advantages[batch.mask], batch.rewards[batch.mask])


def test_a_verifier_mix_without_the_teacher_is_grpo_without_its_clip() -> None:
    batch = random_batch(8, 6, seed=1)
    mixed, grpo = VerifierMix(0.0)(batch, step=0), GRPO()(batch, step=0)
    assert torch.equal(mixed.advantages[batch.mask], grpo.advantages[batch.mask])
    assert mixed.ratio_bounds is None and grpo.ratio_bounds == (0.8, 1.2)


def test_answers_to_a_prompt_that_the_grader_finds_alike_teach_grpo_nothing() -> None:
    batch = replace(random_batch(8, 6, seed=1), correct=torch.tensor([1.0, 1, 0, 0, 1, 0, 0, 1]))
    signal = GRPO()(batch, step=0)
    assert not signal.advantages[:4].any() and bool(signal.advantages[4:].any())
    assert signal.metrics["grpo/idle"] == 0.5


def test_va_opd_of_answers_that_need_the_picture_alike_weighs_them_by_their_length_alone() -> None:
    """Without any visual advantage each answer is as heavy as its sibling, and so is each half of it."""
    batch = random_batch(4, 6, seed=4)
    batch = replace(batch, mask=torch.ones_like(batch.mask), blind_teacher_logprobs=batch.teacher_logprobs)
    signal = VAOPD(share=0.5)(batch, step=0)
    torch.testing.assert_close(signal.advantages, batch.rewards)
    assert signal.metrics == {"va_opd/advantage": 0.0, "va_opd/high_share": 0.0}


def test_va_opd_weighs_answers_by_their_z_scores_and_counts_no_negative_advantage() -> None:
    groups = torch.tensor([7, 3, 7, 7])  # 0, 1, 5: mean 2, deviation 2.1602; and one answer by itself
    shares = answer_shares(torch.tensor([0.0, 9.0, 1.0, 5.0]), groups, 1.0)
    assert shares.tolist() == pytest.approx([0.0786840, 1.0, 0.1250046, 0.7963114], abs=1e-5)
    sharp = answer_shares(torch.tensor([0.0, 9.0, 1.0, 5.0]), groups, 1e-4)
    assert sharp.tolist() == pytest.approx([0, 1, 0, 1])
    metrics = VAOPD()(example(), step=0).metrics
    assert metrics == {
        "va_opd/advantage": pytest.approx(2.6 / 7),
        "va_opd/high_share": pytest.approx(2.0 / 2.6),
    }


def test_va_opd_gives_an_answer_its_whole_weight_whatever_its_length() -> None:
    mask = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])
    high = torch.tensor([[True, False, False], [False, True, False], [False, False, False]])
    assert token_shares(high, mask, 0.6).tolist() == [
        pytest.approx(row) for row in ([1, 0, 0], [0.2, 0.6, 0.2], [0, 0, 0])
    ]


def enumerated() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The student's logits [2, 3], the teacher's log-probs, and eight rollouts that hold every token of the student's
    distribution in just its proportions (1/4, 1/4, 1/2 and 5/8, 2/8, 1/8), in two states (the two columns)."""
    probabilities = torch.tensor([[2.0, 2.0, 4.0], [5.0, 2.0, 1.0]], dtype=torch.float64) / 8
    tokens = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0], [2, 0], [2, 1], [2, 1], [2, 2]])
    teacher = torch.tensor([[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64).log()
    return probabilities.log().requires_grad_(), teacher, tokens, torch.ones(8, 2, dtype=torch.bool)


def expected_gradient(objective: Any) -> tuple[Tensor, Tensor]:
    """The mean gradient over the enumerated rollouts, and that of KL(pi_S || pi_T)."""
    logits, teacher, tokens, mask = enumerated()
    student, rows = logits.log_softmax(-1), torch.arange(2)
    logprobs, teacher_logprobs = student[rows, tokens], teacher[rows, tokens]
    old, terms = logprobs.detach(), student.exp() * (student - teacher)
    batch = ScoredBatch(
        old, teacher_logprobs, -old, teacher_logprobs - old, mask, divergence=terms.detach().sum(-1).expand(8, 2)
    )
    loss = 2 * loss_of(objective(batch, step=0), logprobs, old)  # a mean over two states; the divergence is their sum
    (estimated,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (exact,) = torch.autograd.grad(terms.sum(), logits)
    return estimated, exact


@pytest.mark.parametrize("objective", [ReverseKL(), VOPD()], ids=["reverse_kl", "vopd"])
def test_expected_gradient_is_that_of_reverse_kl(objective: Any) -> None:
    """Remark 3.1: with R held constant, E_pi[R grad log pi] = -grad KL(pi_S || pi_T); and a baseline of the context
    alone changes nothing of that."""
    estimated, exact = expected_gradient(objective)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(estimated, exact)


def test_vopds_baseline_is_the_mean_reward_and_takes_variance_away() -> None:
    logits, teacher, tokens, mask = enumerated()
    student, rows = logits.detach().log_softmax(-1), torch.arange(2)
    old, teacher_logprobs = student[rows, tokens], teacher[rows, tokens]
    divergence = (student.exp() * (student - teacher)).sum(-1).expand(8, 2)
    batch = ScoredBatch(old, teacher_logprobs, -old, teacher_logprobs - old, mask, divergence=divergence)
    centred = VOPD()(batch, step=0).advantages
    assert centred.mean(0).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert bool((centred.square().mean(0) < batch.rewards.square().mean(0)).all())


def sampled(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student logits and teacher log-probs at as many states, a token drawn from the student at each, and R."""
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, tokens, 9, generator=generator, dtype=torch.float64)
    student, teacher = logits.log_softmax(-1), teacher.log_softmax(-1)
    ids = torch.multinomial(student.exp(), 1, generator=generator)[:, 0]
    rewards = (teacher - student).gather(-1, ids[:, None])[:, 0]
    return logits, teacher, ids, rewards


def test_gkd_at_beta_1_is_the_mean_of_minus_r_within_sampling_error() -> None:
    logits, teacher, ids, rewards = sampled(40_000)
    student = logits.log_softmax(-1)
    losses = GKD(1.0).token_loss(student, teacher, ids=ids, old_logprobs=rewards, advantages=rewards)
    error = float((losses + rewards).std()) / math.sqrt(len(rewards))
    assert 0.001 < error < 0.01
    assert abs(float(losses.mean() + rewards.mean())) < 4 * error


def test_divergences_coincide_at_the_end_of_their_range() -> None:
    logits, teacher, ids, rewards = sampled(50)
    student = logits.log_softmax(-1)
    old = student.gather(-1, ids[:, None])[:, 0]

    def losses(objective: Any, advantages: Tensor = rewards) -> Tensor:
        return objective.token_loss(student, teacher, ids=ids, old_logprobs=old, advantages=advantages)

    reverse, forward = losses(GKD(1.0)), losses(GKD(0.0))
    torch.testing.assert_close(losses(TopKReverseKL(9)), reverse)
    torch.testing.assert_close(losses(EOPD(threshold=99.0)), reverse)
    torch.testing.assert_close(losses(EOPD(threshold=0.0, k=9)), reverse + forward)
    torch.testing.assert_close(losses(AOPD(k=9)), torch.where(rewards > 0, -rewards, forward))
    torch.testing.assert_close(losses(TrOPD()), -rewards)
    torch.testing.assert_close(losses(TrOPD(k=9), torch.full_like(rewards, math.nan)), forward)
    # Towards its ends the generalised divergence is beta's and (1 - beta)'s share of the plain ones.
    torch.testing.assert_close(losses(GKD(1e-6)) / 1e-6, forward, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(losses(GKD(1 - 1e-6)) / 1e-6, reverse, rtol=1e-3, atol=1e-5)


def test_sft_has_the_gradient_of_torchs_cross_entropy() -> None:
    logits, _, ids, _ = sampled(12)
    logits = logits.requires_grad_()
    logprobs = logits.log_softmax(-1).gather(-1, ids[:, None]).reshape(3, 4)
    batch = replace(random_batch(3, 4, seed=0), old_logprobs=logprobs.detach(), mask=torch.ones(3, 4, dtype=torch.bool))
    signal = SFT()(batch, step=0)
    (ours,) = torch.autograd.grad(loss_of(signal, logprobs, batch.old_logprobs), logits, retain_graph=True)
    loss = torch.nn.functional.cross_entropy(logits, ids)
    (wanted,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(ours, wanted)
    assert signal.metrics["sft/cross_entropy"] == pytest.approx(float(loss.detach()))
