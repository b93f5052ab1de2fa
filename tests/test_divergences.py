"""What every divergence passes: an example by hand, its gradient against autograd of the formula written densely, and
through the student's one forward: tiles and micro-batches sum to the whole, NaN outside the mask, an empty mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from objective_cases import divergence_names, example
from tiny import load_tiny, mixed_samples, plain_distribution, random_rollouts, save_tiny
from torch import Tensor

from reopold_vl import divergence
from reopold_vl.collate import collate_rollouts
from reopold_vl.divergence import DivergenceLoss, divergences, normalised
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.objectives.divergences.aopd import AOPD
from reopold_vl.objectives.divergences.eopd import EOPD
from reopold_vl.objectives.divergences.gkd import GKD
from reopold_vl.objectives.divergences.parts import coarse_kl, entropy, kl
from reopold_vl.objectives.divergences.topk_reverse_kl import TopKReverseKL
from reopold_vl.objectives.divergences.tropd import TrOPD
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.types import Rollout

STUDENT, TEACHER = [0.5, 0.25, 0.25], [0.125, 0.5, 0.375]
UP, DOWN = math.log(2), -math.log(4)  # the rewards of the second and of the first id
FORWARD_1 = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # the teacher's likeliest id and the rest: 0.5 and 0.25

Dense = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # p, q, id, old probability, advantage -> loss


def dense_kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def dense_coarse(p: Tensor, q: Tensor, k: int) -> Tensor:
    top = p.detach().argsort(descending=True)[:k]
    merged = [torch.cat([one[top], 1 - one[top].sum(0, keepdim=True)]) for one in (p, q)]
    return dense_kl(merged[0], merged[1])


def dense_jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    middle = beta * q + (1 - beta) * p
    return beta * dense_kl(q, middle) + (1 - beta) * dense_kl(p, middle)


def dense_eopd(p: Tensor, q: Tensor, threshold: float) -> Tensor:
    return dense_kl(p, q) + (dense_coarse(q, p, 1) if float(-(q * q.log()).sum()) > threshold else 0.0)


@dataclass(frozen=True)
class Case:
    """An objective; its losses of the second id (reward UP) and of the first (DOWN), and its formula for one token."""

    objective: Any
    losses: tuple[float, float]
    dense: Dense


CASES = {
    "forward": Case(GKD(0.0), (0.3253362, 0.3253362), lambda p, q, *_: dense_kl(q, p)),
    "reverse": Case(GKD(1.0), (0.4184941, 0.4184941), lambda p, q, *_: dense_kl(p, q)),
    "gkd": Case(GKD(), (0.0877624, 0.0877624), lambda p, q, *_: dense_jsd(p, q, 0.5)),
    "gkd_01": Case(GKD(0.1), (0.0295731, 0.0295731), lambda p, q, *_: dense_jsd(p, q, 0.1)),
    "topk_reverse_kl": Case(TopKReverseKL(1), (0.4133393, 0.4133393), lambda p, q, *_: dense_coarse(p, q, 1)),
    # The teacher's entropy is 0.9743 nats.
    "eopd": Case(EOPD(k=1), (0.4184941 + FORWARD_1, 0.4184941 + FORWARD_1), lambda p, q, *_: dense_eopd(p, q, 0.8)),
    "eopd_sure": Case(EOPD(threshold=1.0, k=1), (0.4184941, 0.4184941), lambda p, q, *_: dense_eopd(p, q, 1.0)),
    "aopd": Case(
        AOPD(k=1),
        (-UP, FORWARD_1),
        lambda p, q, index, old, advantage: -p[index] / old * advantage if advantage > 0 else dense_coarse(q, p, 1),
    ),
    "tropd": Case(TrOPD(k=1), (-UP, -DOWN), lambda p, q, index, old, advantage: -p[index] / old * advantage),
}
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
    sum(case.dense(p[t], q[t], ids[t], old[t].exp(), advantages[t]) for t in range(40)).backward()
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
