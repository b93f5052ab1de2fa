"""TRL's losses on the same numbers (extra `peers`): its generalised JSD, IW-OPD and GRPO."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from objective_cases import loss_of, random_batch
from torch import nn

import reopold_vl.torchvision_shim  # noqa: F401  (before TRL's transformers)
from reopold_vl.divergence import TeacherSide, token_losses
from reopold_vl.objectives.divergences.gkd import GKD
from reopold_vl.objectives.grpo import GRPO, group_advantages
from reopold_vl.objectives.iw_opd import IWOPD

pytest.importorskip("trl", minversion="1.16.0")


class Head(nn.Module):
    """As much of a teacher as a loss over hidden states asks for."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.head.weight = nn.Parameter(weight)

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def side(hidden: torch.Tensor, weight: torch.Tensor) -> TeacherSide:
    policy: Any = SimpleNamespace(model=Head(weight), autocast=lambda: torch.autocast("cpu", enabled=False))
    return TeacherSide(SimpleNamespace(policy=policy), hidden)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_gkd_is_the_distillation_trainers_loss(beta: float) -> None:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # pyright: ignore

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 16, generator=generator).requires_grad_()
    teacher_hidden = torch.randn(3, 5, 24, generator=generator)
    weight = (torch.randn(40, 16, generator=generator) / 2).requires_grad_()
    teacher_weight = torch.randn(40, 24, generator=generator) / 2
    mask = torch.rand(3, 5, generator=generator) < 0.7
    ids = torch.randint(0, 40, (3, 5), generator=generator)
    theirs = _chunked_divergence_loss(hidden, teacher_hidden, weight, teacher_weight, mask.long(), beta)[0]
    wanted = torch.autograd.grad(theirs, (hidden, weight))

    nothing = torch.zeros(int(mask.sum()))
    found = token_losses(
        hidden[mask],
        weight,
        None,
        ids[mask],
        teacher=side(teacher_hidden[mask], teacher_weight),
        objective=GKD(beta),
        old_logprobs=nothing,
        advantages=nothing,
    )
    ours = found.loss.mean()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-4)
    for one, other in zip(torch.autograd.grad(ours, (hidden, weight)), wanted, strict=True):
        assert other.abs().max() > 1e-4
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_iw_opd_is_the_iw_opd_trainers_loss() -> None:
    from trl.experimental.iw_opd.iw_opd_trainer import IWOPDTrainer  # pyright: ignore

    batch = random_batch(4, 6, seed=3)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 6, 11, generator=generator, dtype=torch.float64).requires_grad_()
    ids = torch.randint(0, 11, (4, 6), generator=generator)
    trainer: Any = SimpleNamespace(
        temperature=1.0,
        iw_opd_gamma=0.5,
        iw_opd_epsilon=1e-8,
        model=nn.Identity(),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    logprobs = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    old = logprobs.detach()
    rewards = batch.teacher_logprobs - old
    theirs = IWOPDTrainer._compute_iw_opd_loss(
        trainer, logits, ids, ids.where(batch.mask, -100), batch.teacher_logprobs, old
    )
    (wanted,) = torch.autograd.grad(theirs, logits, retain_graph=True)
    scored = type(batch)(old, batch.teacher_logprobs, batch.entropy, rewards, batch.mask)
    (ours,) = torch.autograd.grad(loss_of(IWOPD()(scored, step=0), logprobs, old), logits)
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize(
    ("weighting", "theirs"), [("token", "bnpo"), ("answer_mean", "grpo"), ("answer_sum", "dr_grpo")]
)
def test_grpo_is_the_grpo_trainers_loss(weighting: Any, theirs: str) -> None:
    from trl import GRPOTrainer  # pyright: ignore

    batch = random_batch(6, 5, seed=5)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 5, 2])[:, None]
    batch = type(batch)(**{**vars(batch), "mask": mask})
    noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    logprobs = (batch.old_logprobs + 0.4 * noise).requires_grad_()
    assert batch.correct is not None and batch.groups is not None
    advantages, _ = group_advantages(batch.correct, batch.groups, scale_by_std=theirs != "dr_grpo")
    trainer: Any = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.0,
        loss_type=theirs,
        epsilon_low=0.2,
        epsilon_high=0.28,
        args=SimpleNamespace(delta=None),
        use_vllm=False,
        model=nn.Identity().train(),
        current_gradient_accumulation_steps=1,
        max_completion_length=5,
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(gather=lambda values: values, reduce=lambda values, reduction: values),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    ids = torch.zeros(6, 5, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": batch.old_logprobs,
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    (wanted,) = torch.autograd.grad(loss, logprobs)
    objective = GRPO(clip_high=0.28, scale_by_std=theirs != "dr_grpo", weighting=weighting)
    ours = loss_of(objective(batch, step=0), logprobs, batch.old_logprobs)
    assert float(ours.detach()) == pytest.approx(float(loss.detach()))
    (found,) = torch.autograd.grad(ours, logprobs)
    assert bool((wanted[mask] == 0).any()) and bool((wanted[mask] != 0).any())  # some ratios are clipped
    torch.testing.assert_close(found, wanted)
