"""Two steps of training with each objective, from the command line: what it needs arrives, and the student moves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import SMALL, read_lines, refused, small_pair, small_rows, warm
from ranks import run_of
from safetensors.torch import load_file

from reopold_vl.config_file import read_config
from reopold_vl.models import resolve
from reopold_vl.objectives import OBJECTIVES

STEPS = (
    "--steps",
    "2",
    "--eval-every",
    "0",
    "--save-every",
    "0",
    "--data.test-rows",
    "0",
    "--data.validation-rows",
    "0",
)
# What the log must hold of an objective beyond what every run has.
METRICS = {
    "reopold": {"reopold/floor", "reopold/clipped"},
    "grpo": {"grpo/reward", "grpo/idle"},
    "verifier_mix": {"grpo/idle"},
    "sft": {"sft/cross_entropy"},
    "vopd": {"vopd/divergence"},
    "va_opd": {"va_opd/advantage", "va_opd/high_share"},
    "vgs": {"vgs/visual", "vgs/prior"},
    "tropd": {"tropd/trusted"},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Flags of a tiny random pair on 30 rows; no test depends on what such a pair can do."""
    root = tmp_path_factory.mktemp("small")
    return root, [*small_pair(root), "--data.path", str(small_rows(root)), *SMALL, *STEPS]


def run(root: Path, name: str, *flags: str) -> tuple[Path, list[dict[str, Any]]]:
    result = warm().run("--objective", name.split("-")[0], *flags, "--output-dir", root, "--name", name)
    assert result.code == 0, result.stderr[-3000:]
    return root / name, read_lines(root / name / "metrics.jsonl")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_steps_of_each_objective(tmp_path: Path, name: str) -> None:
    """On the embedded pair, whose student answers some questions rightly and others not."""
    directory, records = run(tmp_path, name, *STEPS, "--prompts-per-step", "4", "--threads", "1")
    assert type(read_config(directory / "config.yaml").objective) is OBJECTIVES[name]
    assert [record["step"] for record in records] == [0, 1, 2]
    for record in records[1:]:
        assert METRICS.get(name, set()) <= set(record)
        assert all(value is not None and math.isfinite(value) for value in record.values()), record
        assert 0 < record["rollout/tokens"] == round(record["rollout/length"] * 16)
        assert 0 < record["seconds/cpu"] < 60
        assert record["optim/skipped"] == 0 and record["optim/grad_norm"] > 0
        assert 0 < record["rollout/accuracy"] <= 1 and record["rollout/engine_gap"] < 1e-4
    before = load_file(f"{resolve('zoo:student')}/model.safetensors")
    after = load_file(directory / "student" / "model.safetensors")
    assert not [weight for weight in before if torch.equal(before[weight].float(), after[weight].float())]
    assert json.loads((directory / "summary.json").read_text())["rollouts"] == 32


def test_the_teacher_begins_tropds_answers(small: tuple[Path, list[str]]) -> None:
    directory, records = run(small[0], "tropd-begun", *small[1], "--objective.prefix-steps", "2")
    shown = [
        record
        for record in read_lines(directory / "sample_rollouts.jsonl")
        if "The teacher begins" in record["question"]
    ]
    assert shown and all(record["tokens"] for record in shown)
    assert all(math.isfinite(record["loss"]) for record in records[1:])


def test_with_several_updates_and_micro_batches_a_divergence_says_how_far_it_moved(
    small: tuple[Path, list[str]],
) -> None:
    flags = ("--optim.updates-per-batch", "2", "--optim.rows-at-once", "3", "--optim.lr", "0.01")
    _, records = run(small[0], "gkd-updates", *small[1], *flags)
    assert all(record["ratio/max"] > 1.01 for record in records[1:])


@pytest.mark.parametrize("name", ["gkd", "sft", "vopd"])
def test_a_teacher_that_cannot_give_it_is_refused_in_one_line(small: tuple[Path, list[str]], name: str) -> None:
    root, common = small
    flags = ["--objective", name, *common, "--teacher.align", "text", "--output-dir", root, "--name", "refused"]
    message = refused(warm().run(*flags))
    assert f"objective is {name}, and the teacher is" in message and "teacher.align tokens" in message
    assert not (root / "refused").exists()


@pytest.mark.parametrize("name", ["gkd", "vgs"])
def test_two_processes_do_what_one_does(small: tuple[Path, list[str]], name: str) -> None:
    root, common = small
    flags = ["--objective", name, *common]
    one, two = (read_lines(run_of(root, flags, name=f"{name}-{size}", size=size) / "metrics.jsonl") for size in (1, 2))
    for alone, together in zip(one[1:], two[1:], strict=True):
        for metric in ("loss", "optim/grad_norm", "reward/mean", "rollout/tokens", *METRICS.get(name, ())):
            assert together[metric] == pytest.approx(alone[metric], rel=1e-3, abs=1e-5), metric
