"""Token log-probs and entropies against torch's own, whatever the tiles, and never a tensor of [tokens, vocabulary]."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reopold_vl import logprobs
from reopold_vl.logprobs import logit_stats, token_stats

N, D, V = 41, 12, 57


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, D, generator=generator), torch.randn(V, D, generator=generator)
    bias = torch.randn(V, generator=generator)
    ids = torch.randint(0, V, (N,), generator=generator)
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias)]
    return leaves[0], leaves[1], leaves[2], ids


def small_tiles(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(logprobs, "TILE_ROWS", rows)
    monkeypatch.setattr(logprobs, "TILE_ELEMENTS", 0)


@pytest.fixture(params=[1, 7, N, None], ids=lambda rows: f"tile_{rows}")
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        small_tiles(monkeypatch, request.param)


@pytest.mark.parametrize("with_bias", [True, False])
def test_parity_with_torch_and_its_gradient(tiles: None, with_bias: bool) -> None:
    hidden, weight, bias, ids = inputs()
    used = (hidden, weight, bias) if with_bias else (hidden, weight)
    stats = token_stats(hidden, weight, bias if with_bias else None, ids)
    reference = torch.distributions.Categorical(logits=F.linear(*used))
    torch.testing.assert_close(stats.logprobs, reference.log_prob(ids), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(stats.entropy, reference.entropy(), rtol=1e-6, atol=2e-6)

    push = torch.linspace(-1, 1, N)
    ours = torch.autograd.grad((stats.logprobs * push).sum() + (stats.entropy * push**2).sum(), used)
    theirs = torch.autograd.grad((reference.log_prob(ids) * push).sum() + (reference.entropy() * push**2).sum(), used)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_zero_tokens_give_nothing_and_keep_the_graph() -> None:
    hidden, weight, bias, ids = inputs()
    stats = token_stats(hidden[:0], weight, bias, ids[:0])
    assert stats.logprobs.shape == stats.entropy.shape == (0,)
    stats.logprobs.sum().backward()
    assert hidden.grad is not None and not hidden.grad.any()


def test_bf16_weights_are_reduced_in_fp32(tiles: None) -> None:
    hidden, weight, bias, ids = inputs(torch.bfloat16)
    with torch.no_grad():
        stats = token_stats(hidden, weight, bias, ids)
    logits = torch.cat([F.linear(row[None], weight, bias) for row in hidden]).detach().float()
    assert stats.logprobs.dtype == stats.entropy.dtype == torch.float32
    reference = torch.distributions.Categorical(logits=logits)
    # Only the matrix product may round (its order of summation depends on the tile); the reduction may not.
    assert float((stats.logprobs - reference.log_prob(ids)).abs().mean()) < 2e-3
    assert float((stats.entropy - reference.entropy()).abs().mean()) < 2e-3
    exact = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(logit_stats(logits.bfloat16(), ids)[0], exact.log_prob(ids), rtol=1e-6, atol=2e-6)


def test_logits_of_minus_infinity_have_no_weight(tiles: None) -> None:
    hidden, weight, _, ids = inputs()
    banned = torch.zeros(V)
    banned[3:9] = -torch.inf
    ids = torch.where((ids >= 3) & (ids < 9), 0, ids)
    stats = token_stats(hidden, weight, banned, ids)
    kept = torch.tensor([*range(3), *range(9, V)])
    reference = torch.distributions.Categorical(logits=F.linear(hidden, weight)[:, kept])
    moved = torch.where(ids >= 9, ids - 6, ids)
    torch.testing.assert_close(stats.logprobs, reference.log_prob(moved), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(stats.entropy, reference.entropy(), rtol=1e-6, atol=2e-6)
    gradients = torch.autograd.grad(stats.logprobs.sum() + stats.entropy.sum(), (hidden, weight))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_token_of_probability_zero_is_minus_infinity_not_nan() -> None:
    stats = logit_stats(torch.tensor([[0.0, -torch.inf, 1.0]]), torch.tensor([1]))
    assert stats[0].tolist() == [-torch.inf]
    assert torch.isfinite(stats[1]).all()


def test_entropy_of_a_sure_token_is_precise_and_never_negative() -> None:
    """Large logits with little left to choose: 1e-4 nats must not drown in the rounding of the normaliser."""
    logits = torch.tensor([[40.0, 28.0, 20.0], [300.0, 290.0, 0.0], [90.0, 0.0, -90.0]])
    stats = logit_stats(logits, torch.zeros(3, dtype=torch.long))
    exact = torch.distributions.Categorical(logits=logits.double()).entropy().float()
    torch.testing.assert_close(stats[1], exact, rtol=0, atol=1e-7)  # as near as fp32 probabilities come to 1
    assert bool((stats[1] >= 0).all())


@pytest.mark.parametrize("grad", [True, False])
def test_no_more_than_a_tile_is_ever_projected_or_saved(monkeypatch: pytest.MonkeyPatch, grad: bool) -> None:
    small_tiles(monkeypatch, 5)
    projected: list[int] = []
    saved: list[int] = []

    def linear(hidden: Tensor, *rest: Tensor) -> Tensor:
        projected.append(hidden.shape[0])
        return F.linear(hidden, *rest)

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    monkeypatch.setattr(logprobs, "F", SimpleNamespace(linear=linear))
    hidden, weight, bias, ids = inputs()
    with torch.set_grad_enabled(grad), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stats = token_stats(hidden, weight, bias, ids)
    assert max(projected) <= 5 and sum(projected) == N
    # What the backward pass waits for: no logits, not even one tile's (57 * 5 exceed no other tensor but the weights).
    assert max([0, *saved]) <= max(hidden.numel(), weight.numel())
    assert 5 * V not in saved
    if grad:
        projected.clear()
        (stats.logprobs.sum() + stats.entropy.sum()).backward()
        assert max(projected) <= 5 and sum(projected) == N


def test_a_large_vocabulary_gets_small_tiles_and_a_small_one_large() -> None:
    """At V = 151,936 a tile has 128 rows (74 MiB of fp32 logits), whatever the number of tokens."""
    assert max(logprobs.TILE_ROWS, logprobs.TILE_ELEMENTS // 151_936) <= 256
    assert max(logprobs.TILE_ROWS, logprobs.TILE_ELEMENTS // 700) > 10_000
