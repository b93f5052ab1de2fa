"""Finished runs of a study that nobody trained: their files, with accuracies that follow a formula."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reopold_vl.compare.runner import run_config
from reopold_vl.compare.study import Arm, Study
from reopold_vl.config import DataConfig, RolloutConfig
from reopold_vl.config_file import write_config
from reopold_vl.presets import EMBEDDED

TINY = replace(
    EMBEDDED,
    steps=2,
    prompts_per_step=4,
    eval_every=1,
    data=DataConfig(validation_rows=11, test_rows=22),
    rollout=RolloutConfig(n=2, max_new_tokens=24),
)
STEPS, ROLLOUTS, TEST = 20, 100, 200
TYPES = ("count", "sum")
BEFORE, TEACHER = {"count": 0.5, "sum": 0.6}, {"count": 0.9, "sum": 0.95}

Ends = Callable[[Arm, int], dict[str, float]]  # (arm, seed) -> accuracy after, by question type


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def answers(accuracy: dict[str, float]) -> list[dict[str, Any]]:
    """TEST answers to each type, the first ones right."""
    rows = [(kind, number) for kind in TYPES for number in range(TEST)]
    return [
        {"id": f"{kind}{number}", "source": kind, "correct": number < round(accuracy[kind] * TEST)}
        for kind, number in rows
    ]


def write_run(study: Study, arm: Arm, seed: int, directory: Path, after: dict[str, float]) -> None:
    """What a finished run leaves: validation climbs from half to the mean of `after` along 1 - exp(-step / 3)."""
    config = run_config(study, arm, seed, directory)
    config.run_dir.mkdir(parents=True)
    write_config(config, config.run_dir / "config.yaml")
    overall = {
        name: sum(kinds.values()) / len(kinds)
        for name, kinds in {"before": BEFORE, "teacher": TEACHER, "after": after}.items()
    }
    text = json.dumps({"accuracy": overall, "num_problems": 2 * TEST, "versions": {"torch": "2"}})
    (config.run_dir / "summary.json").write_text(text)
    for name, kinds in (("before", BEFORE), ("teacher", TEACHER), ("after", after)):
        write_lines(config.run_dir / f"test_{name}.jsonl", answers(kinds))
    write_lines(config.run_dir / "teacher_validation.jsonl", answers(TEACHER))
    gain = overall["after"] - 0.5
    records: list[dict[str, Any]] = [{"step": 0, "rollout/total": 0, "validation/accuracy": 0.5}]
    for step in range(1, STEPS + 1):
        tail = math.exp(-step / 5)
        records.append(
            {"step": step, "rollout/total": step * ROLLOUTS, "rollout/tokens": 2500.0, "seconds/cpu": 10.0}
            | {"seconds/teacher_cpu": 4.0, "student/entropy": 0.1 * tail, "mask/kept": 1.0, "loss": 0.1}
            | {"reward/p01": -9 * tail, "reward/p10": -tail, "reward/min": -20.0, "reward/below_1.72": 0.1 * tail}
            | {"reward/below_5": 0.05 * tail, "reward/below_10": 0.01 * tail, "rollout/accuracy": 0.9}
        )
        if step % 2 == 0 or step == 1:
            records[-1]["validation/accuracy"] = 0.5 + gain * (1 - math.exp(-step / 3))
    write_lines(config.run_dir / "metrics.jsonl", records)


def write_study(study: Study, directory: Path, ends: Ends) -> None:
    """All runs of a study."""
    for arm in study.arms:
        for seed in study.all_seeds:
            write_run(study, arm, seed, directory, ends(arm, seed))
