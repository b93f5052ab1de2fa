"""The policy-gradient loss: values by hand, where its gradient goes and where not, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from reopold_vl.loss import policy_gradient_loss

OLD = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]])
ADVANTAGES = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
MASK = torch.tensor([[True, True], [True, False]])


def test_worked_example() -> None:
    """rho = 2, 1/2, 1 on the kept tokens: -(2 * 1 - 2 / 2 + 0.5) / 3 = -0.5."""
    logprobs = OLD + torch.tensor([[2.0, 0.5], [1.0, 3.0]]).log()
    output = policy_gradient_loss(logprobs, OLD, ADVANTAGES, MASK, denominator=3)
    assert float(output.loss) == pytest.approx(-0.5)
    assert float(output.metrics["loss"]) == pytest.approx(-0.5)
    assert float(output.metrics["ratio/max"]) == pytest.approx(2.0)


def test_denominator_may_count_tokens_of_other_micro_batches() -> None:
    one, ten = (policy_gradient_loss(OLD, OLD, ADVANTAGES, MASK, denominator=d).loss for d in (1, 10))
    assert float(one) == pytest.approx(0.5) and float(ten) == pytest.approx(0.05)


def test_gradient_is_minus_ratio_times_advantage_and_goes_to_logprobs_alone() -> None:
    old, advantages = OLD.clone().requires_grad_(), ADVANTAGES.clone().requires_grad_()
    logprobs = (OLD + torch.tensor([[2.0, 0.5], [1.0, 3.0]]).log()).requires_grad_()
    policy_gradient_loss(logprobs, old, advantages, MASK, denominator=3).loss.backward()
    expected = -torch.tensor([[2.0, -1.0], [0.5, 0.0]]) / 3
    torch.testing.assert_close(logprobs.grad, expected)
    assert old.grad is None and advantages.grad is None


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_anything_outside_the_mask_is_ignored(junk: float) -> None:
    gradients = []
    for fill in (0.0, junk):
        logprobs, old, advantages = (torch.where(MASK, x, fill) for x in (OLD + 0.1, OLD, ADVANTAGES))
        logprobs.requires_grad_()
        output = policy_gradient_loss(logprobs, old, advantages, MASK, denominator=3)
        output.loss.backward()
        gradients.append(logprobs.grad)
        assert all(math.isfinite(value) for value in output.metrics.values())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("denominator", [0, -1, 0.0])
def test_a_denominator_that_is_not_positive_is_refused(denominator: float) -> None:
    with pytest.raises(ValueError, match=f"denominator is {denominator}: .* must be positive"):
        policy_gradient_loss(OLD, OLD, ADVANTAGES, MASK, denominator=denominator)


def test_a_batch_without_columns_is_a_zero_with_a_graph() -> None:
    logprobs = torch.zeros(3, 0, requires_grad=True)
    none = torch.zeros(3, 0)
    output = policy_gradient_loss(logprobs, none, none, none.bool(), denominator=1)
    output.loss.backward()
    assert float(output.loss.detach()) == 0 and output.metrics["ratio/max"] == 0


def test_shapes_are_checked_while_testing() -> None:
    """conftest.py installs jaxtyping's hook: broadcasting one row over a batch would be a silent error."""
    with pytest.raises(TypeCheckError, match="old_logprobs"):
        policy_gradient_loss(OLD, OLD[:, :1], ADVANTAGES, MASK, denominator=1)
