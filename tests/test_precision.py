"""bf16 products over fp32 weights: close to fp32, still trainable, and never taken for exact."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reopold_vl.check import check_pair
from reopold_vl.checkpoint import load_checkpoint, save_checkpoint
from reopold_vl.collate import collate_rollouts
from reopold_vl.config import ConfigError, LoRAConfig, ModelConfig, OptimConfig, StudentConfig, TrainConfig
from reopold_vl.models import ModelError, VisionLanguageModel, load_model, pick_device, pick_dtype
from reopold_vl.optim import build_optimizer, build_scheduler
from reopold_vl.policy import Policy
from reopold_vl.score import engine_gaps, score, score_tokens
from reopold_vl.teachers.local import LocalTeacher
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
    assert gap == pytest.approx(by_hand) and gap < 0.5  # on some machines both round alike


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
    report = check_pair(half, LocalTeacher(half, rows_at_once=8), [prompt.sample for prompt in prompts])
    assert report.shared_prompts and all(result.status == "ok" for result in report.results)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_student_whose_updates_would_be_lost_is_refused(dtype: str) -> None:
    student: Any = {"dtype": dtype}
    with pytest.raises(ConfigError, match=rf"student\.dtype is {dtype}: allowed is float32, or bfloat16 with"):
        TrainConfig(student=StudentConfig("zoo:student", **student))


def test_bf16_weights_need_masters_or_adapters_and_fp32_weights_need_neither() -> None:
    half, adapted = StudentConfig("x/y", dtype="bfloat16"), LoRAConfig(rank=4)
    TrainConfig(student=half, optim=OptimConfig(master="float32"))
    TrainConfig(student=replace(half, lora=adapted))
    with pytest.raises(ConfigError, match=r"student\.dtype is float16"):
        TrainConfig(student=replace(half, dtype="float16"), optim=OptimConfig(master="float32"))
    for student in (StudentConfig("x/y"), replace(half, lora=adapted)):
        with pytest.raises(ConfigError, match=r"optim\.master is float32: allowed is none"):
            TrainConfig(student=student, optim=OptimConfig(master="float32"))


def test_flash_attention_needs_half_precision() -> None:
    with pytest.raises(ConfigError, match="attention is flash_attention_2"):
        ModelConfig("zoo:student", attention="flash_attention_2")
    assert ModelConfig("zoo:student", attention="flash_attention_2", compute="bfloat16").dtype == "float32"


# Master weights


def training(dtype: torch.dtype, *, master: bool, lr: float = 1e-5) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4)).to(torch.bfloat16).to(dtype)
    return model, build_optimizer(model, lr=lr, betas=(0.9, 0.99), weight_decay=0.1, master=master)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Gradients that are the same whatever the weights are, and representable in bf16."""
    for step in steps:
        generator = torch.Generator().manual_seed(step // 10)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).bfloat16().to(parameter.dtype)
        optimizer.step()


def test_masters_are_what_adamw_makes_of_fp32_weights() -> None:
    """Bit for bit over fifty steps, and the weights are the masters rounded."""
    (half, ours), (whole, theirs) = training(torch.bfloat16, master=True), training(torch.float32, master=False)
    start = [parameter.detach().clone() for parameter in half.parameters()]
    train(half, ours, range(50))
    train(whole, theirs, range(50))
    for parameter, expected in zip(half.parameters(), whole.parameters(), strict=True):
        state = ours.state[parameter]
        assert state["master"].dtype == state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float32
        assert torch.equal(state["master"], expected) and torch.equal(parameter, expected.bfloat16())
    moved = [not torch.equal(new, old) for new, old in zip(half.parameters(), start, strict=True)]
    assert all(moved[:2])


def test_without_masters_bf16_loses_what_fp32_keeps() -> None:
    moved = {}
    for master in (False, True):
        model, optimizer = training(torch.bfloat16, master=master)
        start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train(model, optimizer, range(50))
        moved[master] = float((nn.utils.parameters_to_vector(model.parameters()) != start).float().mean())
    assert moved[False] < 0.1 and moved[True] > 0.25


@pytest.mark.parametrize("copied", [False, True])
def test_masters_go_on_from_a_state_dict_exactly(copied: bool) -> None:
    straight, first = training(torch.bfloat16, master=True)
    train(straight, first, range(5))
    resumed, second = training(torch.bfloat16, master=True)
    resumed.load_state_dict(straight.state_dict())
    state = first.state_dict()
    second.load_state_dict(copy.deepcopy(state) if copied else state)
    masters = [second.state[parameter]["master"] for parameter in resumed.parameters()]
    assert all(master.dtype == torch.float32 for master in masters)
    train(straight, first, range(5, 12))
    assert not torch.equal(masters[0], first.state[next(straight.parameters())]["master"])  # nothing is shared
    train(resumed, second, range(5, 12))
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert all(torch.equal(value, second.state[other][name]) for name, value in first.state[one].items())


def test_masters_are_in_checkpoints(tmp_path: Path) -> None:
    straight, first = training(torch.bfloat16, master=True)
    train(straight, first, range(5))
    schedule = partial(build_scheduler, name="constant", warmup_updates=0, updates=9)
    save_checkpoint(tmp_path, step=5, model=straight, optimizer=first, scheduler=schedule(first), state={}, keep=1)
    resumed, second = training(torch.bfloat16, master=True)
    load_checkpoint(tmp_path / "step-000005", model=resumed, optimizer=second, scheduler=schedule(second))
    train(straight, first, range(5, 12))
    train(resumed, second, range(5, 12))
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other) and torch.equal(first.state[one]["master"], second.state[other]["master"])


def test_a_bf16_student_learns_with_masters(fresh_vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    policy = fresh_vlm.policy.to(torch.bfloat16)
    rollouts = fresh_vlm.engine(rows_at_once=16).generate(prompts, n=2, max_new_tokens=6, seed=0)
    batch = collate_rollouts(rollouts, pad_id=fresh_vlm.pad_id)
    optimizer = build_optimizer(policy, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, master=True)
    losses = []
    for _ in range(8):
        loss = -policy(batch, batch.mask).logprobs.sum()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0] and next(policy.parameters()).dtype == torch.bfloat16


# Schedules


@pytest.mark.parametrize(
    ("name", "warmup", "expected"),
    [
        ("constant", 0, lambda t: 1.0),
        ("constant_with_warmup", 4, lambda t: min(1.0, t / 4)),
        ("linear", 4, lambda t: t / 4 if t < 4 else (20 - t) / 16),
        ("cosine", 4, lambda t: t / 4 if t < 4 else (1 + math.cos(math.pi * (t - 4) / 16)) / 2),
        ("cosine_with_min_lr", 4, lambda t: t / 4 if t < 4 else 0.2 + 0.8 * (1 + math.cos(math.pi * (t - 4) / 16)) / 2),
    ],
)
def test_schedules_are_their_formulas(name: str, warmup: int, expected: Any) -> None:
    model, optimizer = training(torch.float32, master=False, lr=0.5)
    scheduler = build_scheduler(optimizer, name=name, warmup_updates=warmup, updates=20, min_lr_ratio=0.2)
    for step in range(21):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * expected(step), abs=1e-12)
        next(model.parameters()).grad = torch.zeros(16, 16)
        optimizer.step()
        scheduler.step()


def test_decay_shrinks_matrices_and_nothing_else() -> None:
    model, optimizer = training(torch.float32, master=False, lr=0.5)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old * (0.95 if parameter.ndim == 2 else 1.0))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("warmup_updates", {"schedule": "constant", "warmup_updates": 3}),
        ("min_lr_ratio", {"min_lr_ratio": 1.0}),
        ("ema_decay", {"ema_decay": 1.0}),
    ],
)
def test_settings_of_the_optimizer_that_cannot_be(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"optim\.{field} is {values[field]}: allowed is"):
        OptimConfig(**values)


# Devices


@pytest.mark.parametrize(
    ("device", "message"),
    [("nowhere", "allowed is auto, cpu, cuda or cuda:N"), ("cuda:99", "allowed is auto"), ("cuda", "allowed is auto")],
)
def test_a_device_that_is_not_there_is_one_line(device: str, message: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for attempt in (
        partial(pick_device, device),
        partial(load_model, "zoo:student", device=device, min_pixels=3136, max_pixels=50176),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            attempt()
        assert str(caught.value).startswith("device is ") and device in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"^student\.device is "):
        pick_device(device, field="student.device")


def test_automatic_devices_and_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_dtype("auto", cpu) == "float32" and pick_dtype("auto", gpu) == "bfloat16"
    assert pick_dtype("float16", cpu) == pick_dtype("float16", gpu) == "float16"
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: 2 * there)
        assert pick_device("auto").type == ("cuda" if there else "cpu") and pick_device("cpu") == cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ModelError, match="device is cuda:2: allowed is auto, cpu or cuda:0 to cuda:1"):
        pick_device("cuda:2")
