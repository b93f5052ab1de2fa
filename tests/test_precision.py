"""bf16 products over fp32 weights: close to fp32, still trainable, and never taken for exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reopold_vl.check import check_pair
from reopold_vl.collate import collate_rollouts
from reopold_vl.config import ConfigError, ModelConfig, StudentConfig, TrainConfig
from reopold_vl.models import ModelError, VisionLanguageModel, load_model
from reopold_vl.optim import build_optimizer
from reopold_vl.policy import Policy
from reopold_vl.score import engine_gaps, score, score_tokens
from reopold_vl.types import Prompt


@pytest.fixture
def half(fresh_vlm: VisionLanguageModel) -> VisionLanguageModel:
    """The tiny model with fp32 weights and bf16 products."""
    return replace(fresh_vlm, policy=Policy(fresh_vlm.policy.model, compute=torch.bfloat16))


def test_bf16_products_are_near_fp32_and_not_equal(
    half: VisionLanguageModel, vlm: VisionLanguageModel, prompts: list[Prompt]
) -> None:
    rollouts = vlm.engine(rows_at_once=16).generate(prompts, n=2, max_new_tokens=6, seed=0)
    exact = score_tokens(vlm, rollouts, rows_at_once=16).logprobs
    rough = score_tokens(half, rollouts, rows_at_once=16).logprobs
    assert exact.dtype == rough.dtype == torch.float32
    assert 0 < float((exact - rough).abs().mean()) < 0.1


def test_an_engine_in_bf16_is_not_exact_and_its_gap_is_measured(
    half: VisionLanguageModel, vlm: VisionLanguageModel, prompts: list[Prompt]
) -> None:
    assert vlm.engine(rows_at_once=8).exact and not half.engine(rows_at_once=8).exact
    rollouts = half.engine(rows_at_once=16).generate(prompts, n=2, max_new_tokens=6, seed=0)
    scored = score_tokens(half, rollouts, rows_at_once=16)
    gap = float(engine_gaps(rollouts, score(rollouts, scored, scored).old_logprobs).max())
    by_hand = max(
        float((row[: len(rollout.logprobs)] - rollout.logprobs).abs().max())
        for row, rollout in zip(scored.logprobs, rollouts, strict=True)
    )
    assert gap == pytest.approx(by_hand) and 0 < gap < 0.5


def test_one_small_update_moves_most_fp32_weights_under_bf16_products(
    half: VisionLanguageModel, prompts: list[Prompt]
) -> None:
    rollouts = half.engine(rows_at_once=16).generate(prompts, n=2, max_new_tokens=6, seed=0)
    batch = collate_rollouts(rollouts, pad_id=half.pad_id)
    before = [parameter.detach().clone() for parameter in half.policy.parameters()]
    optimizer = build_optimizer(half.policy, lr=5e-6, betas=(0.9, 0.999), weight_decay=0.0)
    half.policy(batch, batch.mask).logprobs.sum().backward()
    optimizer.step()
    moved = sum(int((old != new).sum()) for old, new in zip(before, half.policy.parameters(), strict=True))
    used = sum(int((p.grad != 0).sum()) for p in half.policy.parameters() if p.grad is not None)
    assert moved > 0.9 * used > 0


def test_a_pair_in_bf16_passes_the_check(half: VisionLanguageModel, prompts: list[Prompt]) -> None:
    report = check_pair(half, half, [prompt.sample for prompt in prompts])
    assert report.shared_prompts and report.engine_gap < 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_student_that_is_trained_keeps_fp32_weights(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"student.dtype is {dtype}: allowed is float32"):
        TrainConfig(student=StudentConfig("zoo:student", dtype=dtype))  # pyright: ignore[reportArgumentType]


def test_flash_attention_needs_half_precision() -> None:
    with pytest.raises(ConfigError, match="attention is flash_attention_2"):
        ModelConfig("zoo:student", attention="flash_attention_2")
    assert ModelConfig("zoo:student", attention="flash_attention_2", compute="bfloat16").dtype == "float32"


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    with pytest.raises(ModelError, match=f"zoo:student: device {device} cannot be used"):
        load_model("zoo:student", device=device, min_pixels=3136, max_pixels=50176)
