"""The moving average of the student: its formula, what it is hooked to, and what a run leaves of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import SMALL, read_lines, small_pair, small_rows, warm
from safetensors.torch import load_file
from torch import nn

from reopold_vl.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from reopold_vl.ema import MovingAverage
from reopold_vl.optim import build_optimizer, build_scheduler, update


class Training:
    def __init__(self, *, decay: float = 0.9, dtype: torch.dtype = torch.float32, master: bool = False) -> None:
        torch.manual_seed(0)
        self.model: Any = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
        self.model[0].bias.requires_grad_(False)
        self.optimizer = build_optimizer(self.model, lr=0.05, betas=(0.9, 0.99), weight_decay=0.0, master=master)
        self.scheduler = build_scheduler(self.optimizer, name="constant", warmup_updates=0, updates=9)
        self.average = MovingAverage(self.model, self.optimizer, decay=decay)

    def step(self, number: int, *, poison: bool = False) -> None:
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(number)).to(self.model[0].weight.dtype)
        self.model(inputs * (torch.nan if poison else 1)).square().sum().backward()
        update(self.optimizer, self.scheduler, self.model.parameters(), max_grad_norm=1.0)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_the_formula_and_skipped_updates_do_not_count(decay: float) -> None:
    training = Training(decay=decay)
    expected = training.weights()["2.weight"].double()
    for number in range(1, 6):
        training.step(number)
        training.step(number, poison=True)
        rate = min(decay, (1 + number) / (10 + number))
        expected = rate * expected + (1 - rate) * training.weights()["2.weight"].double()
    torch.testing.assert_close(training.average.averages["2.weight"].double(), expected, rtol=0, atol=1e-6)
    assert training.average.updates == 5
    assert "0.bias" not in training.average.averages  # what is not trained is not averaged


def test_masters_are_averaged_rather_than_their_rounded_copies() -> None:
    half = Training(dtype=torch.bfloat16, master=True)
    state, weight = half.optimizer.state, half.model[2].weight
    expected = weight.detach().float()
    for number in range(1, 4):
        half.step(number)
        rate = min(0.9, (1 + number) / (10 + number))
        expected = rate * expected + (1 - rate) * state[weight]["master"]
    torch.testing.assert_close(half.average.averages["2.weight"], expected, rtol=0, atol=1e-7)


def test_it_agrees_with_torchs_own_average() -> None:
    training = Training(decay=0.1)  # below the ramp from the first update on
    theirs = torch.optim.swa_utils.AveragedModel(
        training.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.1)
    )
    theirs.update_parameters(training.model)  # torch starts with the first weights that it sees
    for number in range(4):
        training.step(number)
        theirs.update_parameters(training.model)
    for name, weight in theirs.module.named_parameters():
        if name in training.average.averages:
            torch.testing.assert_close(training.average.averages[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_place_and_back_bit_for_bit(dtype: torch.dtype) -> None:
    training = Training(dtype=dtype, master=dtype == torch.bfloat16)
    for number in range(3):
        training.step(number)
    own, averages = training.weights(), {name: value.clone() for name, value in training.average.averages.items()}
    assert all(value.dtype == torch.float32 for value in averages.values())
    with pytest.raises(ZeroDivisionError), training.average.in_place():
        for name, weight in training.weights().items():
            expected = averages[name].to(dtype) if name in averages else own[name]
            assert torch.equal(weight, expected) and weight.requires_grad is False
        raise ZeroDivisionError
    assert all(torch.equal(weight, own[name]) for name, weight in training.weights().items())
    assert all(torch.equal(value, averages[name]) for name, value in training.average.averages.items())
    assert training.model[2].weight.requires_grad


def test_it_is_in_checkpoints(tmp_path: Path) -> None:
    straight, resumed = Training(), Training()
    for number in range(3):
        straight.step(number)
    parts: dict[str, Any] = {name: getattr(straight, name) for name in ("model", "optimizer", "scheduler", "average")}
    path = save_checkpoint(tmp_path, step=3, state={}, keep=1, **parts)
    parts = {name: getattr(resumed, name) for name in parts}
    load_checkpoint(path, **parts)
    for number in range(3, 6):
        straight.step(number)
        resumed.step(number)
    assert resumed.average.updates == straight.average.updates == 6
    assert all(map(torch.equal, resumed.average.averages.values(), straight.average.averages.values()))


def test_another_models_average_is_refused() -> None:
    state = Training().average.state_dict()
    other = Training()
    other.average.averages.pop("2.bias")
    with pytest.raises(ValueError, match="other weights"):
        other.average.load_state_dict(state)


def test_a_run_leaves_the_average_beside_the_student_and_resumes_it(tmp_path: Path) -> None:
    rows = small_rows(tmp_path / "data")
    pair = small_pair(tmp_path)
    flags = [*pair, "--data.path", rows, "--output-dir", tmp_path / "runs", *SMALL, "--optim.ema-decay", 0.5]
    flags += ["--save-every", 1, "--keep", 9, "--eval-every", 1]
    done = warm().run(*flags, "--steps", 2, "--name", "straight")
    assert done.code == 0, done.stderr[-2000:]
    run = tmp_path / "runs" / "straight"
    records = read_lines(run / "metrics.jsonl")
    assert all("validation/ema_accuracy" in record for record in records)
    assert len(read_lines(run / "test_ema.jsonl")) == len(read_lines(run / "test_after.jsonl")) > 0
    assert "ema_accuracy" in json.loads((run / "summary.json").read_text())
    assert "moving average of the student" in done.stdout
    first = warm().run(*flags, "--steps", 1, "--name", "resumed")
    assert first.code == 0, first.stderr[-2000:]
    again = warm().run("--resume", tmp_path / "runs" / "resumed", "--steps", 2)
    assert again.code == 0, again.stderr[-2000:]
    averages = [
        load_file(tmp_path / "runs" / name / "student_ema" / "model.safetensors") for name in ("straight", "resumed")
    ]
    student = load_file(run / "student" / "model.safetensors")
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
    assert any(not torch.equal(averages[0][name], student[name]) for name in student)
    assert len(checkpoints(run / "checkpoints")) == 2
