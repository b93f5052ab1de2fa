"""The divergences' formulas: by hand, their gradients against autograd of the formula written densely, odd inputs.

test_divergence_loss.py takes them through the student's forward pass.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from divergence_cases import CASES, DOWN, FORWARD_1, STUDENT, TEACHER, UP, Case
from objective_cases import divergence_names, example
from torch import Tensor

from reopold_vl.divergence import normalised
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.objectives.divergences.parts import coarse_kl, entropy, kl
from reopold_vl.objectives.divergences.tropd import TrOPD

each_divergence = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def token_loss(
    objective: Any, student: Tensor, teacher: Tensor, ids: Tensor, old: Tensor, advantages: Tensor
) -> Tensor:
    return objective.token_loss(student, teacher, ids=ids, old_logprobs=old, advantages=advantages)


def test_every_divergence_is_tested_here() -> None:
    assert {type(case.objective) for case in CASES.values()} == {OBJECTIVES[name] for name in divergence_names()}


@each_divergence
def test_worked_example(case: Case) -> None:
    student, teacher = torch.tensor([STUDENT] * 2).log(), torch.tensor([TEACHER] * 2).log()
    ids, advantages = torch.tensor([1, 0]), torch.tensor([UP, DOWN])
    old = student.gather(-1, ids[:, None])[:, 0]
    losses = token_loss(case.objective, student, teacher, ids, old, advantages)
    assert losses.tolist() == pytest.approx(list(case.losses), abs=1e-6)
    signal = case.objective(example(), step=0)
    assert torch.equal(signal.mask, example().mask)


def test_tropd_takes_outliers_to_the_teachers_distribution() -> None:
    student, teacher = torch.tensor([STUDENT]).log(), torch.tensor([TEACHER]).log()
    losses = token_loss(TrOPD(k=1), student, teacher, torch.tensor([0]), student[:, 0], torch.tensor([math.nan]))
    assert losses.tolist() == pytest.approx([FORWARD_1], abs=1e-6)


def test_tropd_trusts_a_token_as_often_as_speculative_decoding_accepts_it() -> None:
    batch = example()
    rewards = torch.tensor([0.7, -0.5, -3.0]).expand(20_000, 3)
    many = type(batch)(rewards, rewards, rewards, rewards, torch.ones_like(rewards, dtype=torch.bool))
    signal = TrOPD()(many, step=3)
    trusted = ~signal.advantages.isnan()
    assert trusted.float().mean(0).tolist() == pytest.approx([1, math.exp(-0.5), math.exp(-3)], abs=0.01)
    assert torch.equal(signal.advantages[trusted], rewards[trusted])
    assert signal.metrics["tropd/trusted"] == pytest.approx(float(trusted.float().mean()))
    assert torch.equal(TrOPD()(many, step=3).advantages.isnan(), ~trusted)
    assert not torch.equal(TrOPD()(many, step=4).advantages.isnan(), ~trusted)


def test_the_teachers_share_of_an_answer_falls_along_a_cosine() -> None:
    assert [TrOPD(prefix_steps=4).prefix_share(step) for step in range(6)] == pytest.approx(
        [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0, 0]
    )
    assert TrOPD().prefix_share(0) == 0


def drawn(tokens: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = 2 * torch.randn(2, tokens, vocabulary, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, vocabulary, (tokens,), generator=generator)
    moved = 0.3 * torch.randn(tokens, generator=generator, dtype=torch.float64)
    old = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0] + moved
    return logits, teacher.log_softmax(-1), ids, old, torch.randn(tokens, generator=generator, dtype=torch.float64)


@each_divergence
def test_gradient_is_that_of_the_formula_written_densely(case: Case) -> None:
    logits, teacher, ids, old, advantages = drawn(40, 7)
    logits.requires_grad_()
    token_loss(case.objective, logits.log_softmax(-1), teacher, ids, old, advantages).sum().backward()
    ours, logits.grad = logits.grad, None
    p, q = logits.softmax(-1), teacher.exp()
    losses = [case.dense(p[t], q[t], ids[t], old[t].exp(), advantages[t]) for t in range(40)]
    torch.stack(losses).sum().backward()
    assert ours is not None and logits.grad is not None and logits.grad.abs().max() > 0.01
    torch.testing.assert_close(ours, logits.grad)


@each_divergence
def test_an_impossible_token_leaves_no_nan_in_the_gradient(case: Case) -> None:
    """Both models may mask padding with -inf."""
    logits, teacher, ids, old, advantages = drawn(9, 6)
    wide, wide_teacher = (torch.nn.functional.pad(each, (0, 2), value=-math.inf) for each in (logits, teacher))
    wide.requires_grad_()
    loss = token_loss(case.objective, normalised(wide, 8), normalised(wide_teacher, 8), ids, old, advantages)
    narrow = token_loss(case.objective, normalised(logits, 6), normalised(teacher, 6), ids, old, advantages)
    torch.testing.assert_close(loss, narrow)
    loss.sum().backward()
    assert wide.grad is not None and bool(torch.isfinite(wide.grad).all())


def test_a_coarse_divergence_is_a_lower_bound_that_meets_the_whole_at_k_equal_to_the_vocabulary() -> None:
    logits, q, *_ = drawn(30, 12)
    p = logits.log_softmax(-1)
    whole, last = kl(p, q), torch.zeros(30)
    for k in range(1, 13):
        found = coarse_kl(p, q, k)
        assert bool((found <= whole + 1e-12).all()) and bool((found >= last - 1e-12).all())
        last = found
    torch.testing.assert_close(last, whole)
    sure = torch.tensor([[40.0, 0.0, 0.0, 0.0]]).log_softmax(-1)  # the rest has probability 1e-17
    found = coarse_kl(torch.tensor([[0.28, 0.24, 0.24, 0.24]]).log(), sure, 1)
    assert float(found) == pytest.approx(0.28 * math.log(0.28) + 0.72 * (math.log(0.72) + 40 - math.log(3)))


def test_entropy_is_torchs() -> None:
    _, q, *_ = drawn(5, 9)
    torch.testing.assert_close(entropy(q), torch.distributions.Categorical(logits=q).entropy())
