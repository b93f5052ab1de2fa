"""What every token objective passes: an example by hand, NaN outside the mask, score function, micro-batches, an empty
mask, permuted rows, no side effects. The divergences have theirs in test_divergences.py."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from objective_cases import (
    CASES,
    ENTROPY,
    MASK,
    REWARDS,
    Case,
    changed,
    divergence_names,
    example,
    loss_of,
    random_batch,
)

from reopold_vl.config import TrainConfig
from reopold_vl.config_file import from_dict, read_config, to_dict, write_config
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.types import ScoredBatch

each_objective = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_name = pytest.mark.parametrize("name", OBJECTIVES)


def test_every_objective_is_tested_here_or_among_the_divergences() -> None:
    tested = {type(case.objective) for case in CASES.values()}
    assert tested == {kind for name, kind in OBJECTIVES.items() if name not in divergence_names()}


@each_objective
def test_worked_example(case: Case) -> None:
    batch = example()
    signal = case.objective(batch, step=case.step)
    assert signal.mask.tolist() == case.mask
    wanted = [*case.advantages[0], *case.advantages[1]]
    assert signal.advantages[MASK].tolist() == pytest.approx(wanted, rel=2e-5, abs=1e-6)
    assert float(loss_of(signal, batch.old_logprobs, batch.old_logprobs)) == pytest.approx(
        case.loss, rel=1e-5, abs=1e-6
    )
    # All probabilities doubled since the rollout: rho = 2 doubles the surrogate, but for a clipped ratio.
    doubled = loss_of(signal, batch.old_logprobs + math.log(2), batch.old_logprobs)
    wanted_then = 2 * case.loss if case.doubled is None else case.doubled
    assert float(doubled) == pytest.approx(wanted_then, rel=1e-5, abs=1e-5)


@each_objective
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_what_stands_outside_the_mask_changes_nothing(case: Case, junk: float) -> None:
    clean = example()
    dirty = changed(clean, lambda values: torch.where(MASK, values, junk), dims=(2,))
    assert not torch.isfinite(dirty.rewards[~MASK]).any()
    results = []
    for batch in (clean, dirty):
        signal = case.objective(batch, step=case.step)
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
def test_gradient_is_the_score_function_estimator(case: Case, moved: float) -> None:
    """d loss / d logits = -(1 / sum M) sum_t rho_t A_t M_t (onehot(o_t) - pi), softmax's own score, in closed form.

    Where a ratio is clipped (PPO: too far in the direction that A pushes) there is none.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    tokens = torch.randint(0, 5, (2, 4), generator=generator)
    logprobs = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    old = logprobs.detach() - moved * torch.randn(2, 4, generator=generator, dtype=torch.float64)
    plain = ScoredBatch(old, old + REWARDS, ENTROPY.double(), REWARDS.double(), MASK)
    extra = {field.name: getattr(example(), field.name) for field in fields(ScoredBatch)[5:]}
    signal = case.objective(replace(plain, **extra), step=case.step)
    loss_of(signal, logprobs, old).backward()

    pi = logits.detach().softmax(-1)
    ratio = pi.gather(-1, tokens[..., None])[..., 0] / old.exp()
    low, high = signal.ratio_bounds or (0.0, math.inf)
    free = torch.where(signal.advantages > 0, ratio < high, ratio > low)
    score = torch.nn.functional.one_hot(tokens, 5) - pi
    weight = torch.where(signal.mask & free, signal.advantages * ratio, 0.0) / signal.mask.sum()
    torch.testing.assert_close(logits.grad, -weight[..., None] * score, rtol=1e-6, atol=1e-9)


@each_objective
def test_micro_batches_sum_to_the_whole(case: Case) -> None:
    batch = random_batch(6, 5, seed=1)
    signal = case.objective(batch, step=case.step)
    noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logprobs = (batch.old_logprobs + 0.3 * noise).requires_grad_()
    whole = loss_of(signal, logprobs, batch.old_logprobs)
    (whole_gradient,) = torch.autograd.grad(whole, logprobs)
    pieces = torch.zeros((), dtype=torch.float64)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        part = loss_of(signal, logprobs, batch.old_logprobs, rows=rows)
        part.backward()
        pieces = pieces + part.detach()
    torch.testing.assert_close(pieces, whole.detach())
    torch.testing.assert_close(logprobs.grad, whole_gradient)


@each_objective
def test_empty_mask_is_a_no_op_and_no_nan(case: Case) -> None:
    batch = replace(example(), mask=torch.zeros_like(MASK))
    signal = case.objective(batch, step=case.step)
    assert not signal.mask.any()
    assert all(math.isfinite(value) for value in signal.metrics.values())
    logprobs = batch.old_logprobs.clone().requires_grad_()
    with pytest.raises(ValueError, match="denominator is 0"):
        loss_of(signal, logprobs, batch.old_logprobs)


@each_objective
def test_one_answer_without_a_token_leaves_the_others_alone(case: Case) -> None:
    """A teacher with another tokenizer may have no reward for any token of an answer."""
    batch = example()
    signal = case.objective(replace(batch, mask=MASK & torch.tensor([[True], [False]])), step=case.step)
    kept = signal.advantages[signal.mask]
    assert bool(torch.isfinite(kept).all()) and not signal.mask[1].any()
    assert all(math.isfinite(value) for value in signal.metrics.values())


@each_objective
def test_permuted_rows_permute_the_signal(case: Case) -> None:
    batch = random_batch(8, 6, seed=2)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    signal = case.objective(batch, step=case.step)
    moved = replace(changed(batch, lambda values: values[order]), mask=batch.mask[order])
    permuted = case.objective(moved, step=case.step)
    assert torch.equal(permuted.mask, signal.mask[order])
    torch.testing.assert_close(permuted.advantages[permuted.mask], signal.advantages[order][permuted.mask])
    assert permuted.metrics == pytest.approx(dict(signal.metrics))


@each_objective
def test_the_signal_carries_no_gradient_and_leaves_the_batch_alone(case: Case) -> None:
    batch, before = example(), example()
    signal = case.objective(batch, step=case.step)
    assert not signal.advantages.requires_grad
    for field in fields(batch):
        assert torch.equal(getattr(batch, field.name), getattr(before, field.name)), field.name


@each_name
def test_what_it_needs_is_what_it_reads(name: str) -> None:
    """Without the fields that it does not name it works; it names no field that does not exist."""
    objective: Any = OBJECTIVES[name]()
    needs = getattr(objective, "needs", frozenset())
    optional = {field.name for field in fields(ScoredBatch)[5:]}
    assert needs <= optional
    objective(replace(example(), **dict.fromkeys(optional - needs)), step=0)
    blind = {field for field in needs if field.startswith("blind_")}
    assert bool(blind) == (getattr(objective, "blind", None) in ("pixelated", "removed"))
    assert getattr(objective, "sampler", "student") in ("student", "teacher")


@each_name
def test_config_yaml_reads_back(name: str, tmp_path: Any) -> None:
    config = TrainConfig(objective=OBJECTIVES[name]())
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert to_dict(config)["objective"]["name"] == name
    assert from_dict({"objective": {"name": name}}).objective == config.objective


@each_name
def test_help_has_its_equation_and_its_paper(name: str) -> None:
    documentation = " ".join((OBJECTIVES[name].__doc__ or "").split())
    assert (
        any(f"{symbol}{index} " in documentation for symbol in "Aw" for index in ("_t", "_it"))
        or "loss" in documentation
    )
    assert " = " in documentation
    assert "arXiv" in documentation or name in ("discounted", "topk_reverse_kl")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("discounted", {"gamma": 1.0}, r"objective\.gamma is 1\.0: allowed is 0 <= gamma < 1"),
        ("exopd", {"extrapolation": 0.0}, r"objective\.extrapolation .*is 0\.0: allowed is above 0"),
        ("grpo", {"clip_low": 1.0}, r"objective\.clip_low is 1\.0: allowed is above 0 and below 1"),
        ("grpo", {"clip_high": 0.0}, r"objective\.clip_high is 0\.0: allowed is above 0"),
        ("iw_opd", {"strength": -0.1}, r"objective\.strength .*is -0\.1: allowed is 0 or more"),
        ("tip", {"share": 0.0}, r"objective\.share is 0\.0: allowed is 0 < share <= 1"),
        ("verifier_mix", {"teacher_weight": -1.0}, r"objective\.teacher_weight .*is -1\.0: allowed is 0 or more"),
        ("va_opd", {"share": 1.1}, r"objective\.share is 1\.1: allowed is 0 < share <= 1"),
        ("va_opd", {"visual_weight": 1.5}, r"objective\.visual_weight is 1\.5: allowed is 0 to 1"),
        ("va_opd", {"temperature": 0.0}, r"objective\.temperature is 0\.0: allowed is above 0"),
        ("vgs", {"gamma": -1.0}, r"objective\.gamma is -1\.0: allowed is 0 or more"),
        ("vgs", {"quantile": 1.0}, r"objective\.quantile is 1\.0: allowed is 0 <= quantile < 1"),
        ("vgs", {"scale": 0.0}, r"objective\.scale .*is 0\.0: allowed is above 0"),
        ("gkd", {"beta": 1.2}, r"objective\.beta is 1\.2: allowed is 0 <= beta <= 1"),
        ("eopd", {"threshold": -1.0}, r"objective\.threshold .*is -1\.0: allowed is 0 or more"),
        ("eopd", {"k": 0}, r"objective\.k is 0: allowed is 1 or more"),
        ("aopd", {"k": 0}, r"objective\.k is 0: allowed is 1 or more"),
        ("topk_reverse_kl", {"k": 0}, r"objective\.k is 0: allowed is 1 or more"),
        ("tropd", {"k": 0}, r"objective\.k is 0: allowed is 1 or more"),
        ("tropd", {"prefix_steps": 0}, r"objective\.prefix_steps .*is 0: allowed is 1 or more, or None"),
    ],
)
def test_values_out_of_range_name_field_value_and_allowed(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name](**settings)
    nan = {field: math.nan for field, value in settings.items() if isinstance(value, float)}
    if nan:
        with pytest.raises(ValueError, match="is nan: allowed"):
            OBJECTIVES[name](**nan)
