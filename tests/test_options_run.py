"""Training options through the command: whole runs that are stopped and resumed, and settings that are refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import SMALL, read_lines, refused, small_pair, small_rows, warm
from safetensors.torch import load_file
from tiny import load_tiny, save_tiny

from reopold_vl.checkpoint import checkpoints
from reopold_vl.merge import merge

LORA = ("--student.lora.rank", 2, "--student.lora.dropout", 0.1, "--optim.lr", 1e-2)
LEAN = (
    *("--student.dtype", "bfloat16", "--student.compute", "bfloat16", "--optim.master", "float32"),
    *("--student.freeze-vision", "--student.freeze-projector", "--student.feature-cache-mb", 4),
    *("--teacher.feature-cache-mb", 4, "--student.gradient-checkpointing", "--student.attention", "eager"),
    *("--optim.schedule", "cosine_with_min_lr", "--optim.warmup-updates", 1, "--optim.weight-decay", 0.01),
    *("--optim.updates-per-batch", 2, "--images.max-pixels", 50 * 28 * 28, "--rollout.max-prompt-tokens", 200),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options")


@pytest.fixture(scope="module")
def flags(root: Path) -> list[object]:
    pair = small_pair(root)
    measured = ("--data.test-rows", 4, "--data.validation-rows", 2, "--save-every", 1, "--eval-every", 0)
    return [*pair, "--data.path", small_rows(root / "data"), *SMALL, *measured, "--output-dir", root / "runs"]


def straight_and_resumed(flags: list[object], root: Path, name: str, *own: object) -> tuple[Path, Path]:
    """Two steps at once, and one after the other."""
    runs = root / "runs" / f"{name}_straight", root / "runs" / f"{name}_resumed"
    for run, steps in zip(runs, (2, 1), strict=True):
        done = warm().run(*flags, *own, "--name", run.name, "--steps", steps)
        assert done.code == 0, done.stderr[-2000:]
    shutil.copytree(runs[1], runs[1].with_name(f"{name}_one"))
    again = warm().run("--resume", runs[1], "--steps", 2)
    assert again.code == 0, again.stderr[-2000:]
    return runs


@pytest.fixture(scope="module")
def lora_runs(flags: list[object], root: Path) -> tuple[Path, Path]:
    return straight_and_resumed(flags, root, "lora", *LORA)


def assert_same_files(one: Path, other: Path) -> dict[str, torch.Tensor]:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    return first


def test_a_run_of_adapters_resumes_exactly_and_saves_adapters_alone(lora_runs: tuple[Path, Path], root: Path) -> None:
    straight = lora_runs[0]
    weights = assert_same_files(*(run / "student" / "adapter_model.safetensors" for run in lora_runs))
    assert any("lora_B" in name and bool(tensor.any()) for name, tensor in weights.items())
    whole = (root / "tiny_student" / "model.safetensors").stat().st_size
    last = checkpoints(straight / "checkpoints")[-1]
    tensors = {name: tensor for file in last.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert all("lora" in name or name.startswith("optimizer.") or tensor.ndim == 0 for name, tensor in tensors.items())
    assert sum(file.stat().st_size for file in last.glob("model*.safetensors")) < whole / 2
    assert not (straight / "student" / "config.json").exists()


def test_what_the_run_saved_is_loaded_and_merged(lora_runs: tuple[Path, Path], tmp_path: Path) -> None:
    student = load_tiny(lora_runs[0] / "student")
    assert {type(module).__module__ for module in student.policy.modules() if hasattr(module, "lora_A")}
    merge(lora_runs[0] / "student", tmp_path / "merged")
    assert load_tiny(tmp_path / "merged").num_parameters < student.num_parameters


def test_an_adapter_starts_a_run_and_is_a_teacher(flags: list[object], lora_runs: tuple[Path, Path]) -> None:
    adapter = lora_runs[0] / "student"
    own = ("--student.adapter", adapter, "--teacher.path", adapter, "--name", "on", "--steps", 1)
    at = flags.index("--teacher.path")
    done = warm().run(*flags[:at], *flags[at + 2 :], *own)
    assert done.code == 0, done.stderr[-2000:]
    [first] = [record for record in read_lines(adapter.parents[1] / "on" / "metrics.jsonl") if record["step"] == 1]
    assert abs(first["reward/mean"]) < 1e-4  # the student is its own teacher


def test_a_checkpoint_of_adapters_is_none_of_all_weights(lora_runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(lora_runs[0].with_name("lora_one"), tmp_path / "changed")
    config = run / "config.yaml"
    config.write_text(re.sub(r"rank: 2", "rank: 0", config.read_text()))
    message = refused(warm().run("--resume", run, "--steps", 2))
    assert "checkpoint" in message and "other settings" in message


def test_every_saving_at_once_resumes_exactly(flags: list[object], root: Path) -> None:
    straight, resumed = straight_and_resumed(flags, root, "lean", *LEAN)
    after = assert_same_files(straight / "student" / "model.safetensors", resumed / "student" / "model.safetensors")
    before = load_file(root / "tiny_student" / "model.safetensors")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name].bfloat16())}
    assert moved and not any("visual" in name for name in moved)
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    last = read_lines(straight / "metrics.jsonl")[-1]
    assert last["features/student_misses"] == last["features/teacher_misses"] > 0
    assert last["features/student_hits"] > last["features/student_misses"]
    rates = [record["optim/lr"] for record in read_lines(straight / "metrics.jsonl") if record["step"] > 0]
    assert rates[0] == 0.0 and rates[1] > 0.0


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (("--student.lora.rank", -1), "student.lora.rank is -1: allowed is 0"),
        (("--student.lora.rank", 2, "--student.lora.targets", "c_attn"), "there are down_proj, gate_proj"),
        (("--student.lora.rank", 2, "--optim.master", "float32"), "optim.master is float32: allowed is none"),
        (("--student.adapter", "/nowhere"), "adapter /nowhere: adapter_config.json is missing"),
        (("--student.feature-cache-mb", 5), "student.feature_cache_mb is 5"),
        (("--teacher.device", "cuda"), "teacher.device is cuda"),
        (("--student.device", "nowhere"), "student.device is 'nowhere'"),
    ],
)
def test_refused_settings(own: tuple[object, ...], message: str, flags: list[object], root: Path) -> None:
    if "cuda" in own and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert message in refused(warm().run(*flags, *own, "--name", "refused", "--steps", 1))
    assert not (root / "runs" / "refused").exists()


def test_an_adapter_of_another_base_is_refused(
    flags: list[object], lora_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    other = save_tiny(tmp_path / "tiny_student", "qwen2_5_vl", seed=5)
    at = flags.index("--student.path")
    own: list[Any] = [*flags[:at], *flags[at + 2 :], "--student.path", other, "--name", "refused", "--steps", 1]
    message = refused(warm().run(*own, "--student.adapter", lora_runs[0] / "student"))
    assert "its weights are not those of" in message and str(other) in message


def test_a_missing_processor_is_one_line(flags: list[object], tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "half", "qwen2_5_vl", seed=5)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (directory / name).unlink(missing_ok=True)
    at = flags.index("--student.path")
    own: list[Any] = [*flags[:at], *flags[at + 2 :], "--student.path", directory, "--name", "refused", "--steps", 1]
    message = refused(warm().run(*own))
    assert str(directory) in message and "processor" in message
