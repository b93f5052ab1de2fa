"""What a study found: every run's numbers gathered into one dictionary, `comparison.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reopold_vl.compare.curves import Curve, cost_ratio, curve_of, mean_interval, reached
from reopold_vl.compare.runner import run_config
from reopold_vl.compare.study import Study
from reopold_vl.config_file import to_dict

WATCHED = ("student/entropy", "rollout/length", "rollout/accuracy", "reopold/clipped", "mask/kept", "reward/p01")


def summarise(study: Study, directory: Path) -> dict[str, Any]:
    """Curves, costs and final accuracies of a study whose runs are all finished; JSON without NaN or infinity.

    Curves and the rollouts to reach an accuracy are of the validation split, final accuracies of the test split; a
    share of the teacher's accuracy is a share of its accuracy on the same split.
    """
    runs = {arm.name: [_read_run(study, arm, seed, directory) for seed in range(study.seeds)] for arm in study.arms}
    arms: dict[str, Any] = {}
    curves = {name: [run["curve"] for run in found] for name, found in runs.items()}
    for arm in study.arms:
        found = runs[arm.name]
        teacher = found[0]["teacher_validation"]
        entry: dict[str, Any] = {
            "objective": arm.objective,
            "settings": dict(arm.settings),
            "changes": dict(arm.changes),
            "before": found[0]["before"],
            "teacher": found[0]["teacher"],
            "teacher_validation": teacher,
            "test_accuracy": interval([run["after"] for run in found]),
            "to_teacher": interval([run["after"] - run["teacher"] for run in found]),
            "by_type": by_type(found),
            "runs": [_plain(run) for run in found],
            "reached": {},
        }
        for share in study.thresholds:
            cost = reached(curves[arm.name], share * teacher)
            entry["reached"][f"{share:.2f}"] = {
                "text": str(cost),
                "median": _finite(cost.median),
                "never": cost.censored,
            }
            if study.reference and study.reference != arm.name:
                ratio, low, high = cost_ratio(curves[arm.name], curves[study.reference], share * teacher)
                entry["reached"][f"{share:.2f}"]["ratio"] = [_finite(value) for value in (ratio, low, high)]
        arms[arm.name] = entry
    return {
        "study": study.name,
        "title": study.title,
        "seeds": study.seeds,
        "reference": study.reference,
        "thresholds": list(study.thresholds),
        "num_test": runs[study.arms[0].name][0]["num_test"],
        "num_validation": runs[study.arms[0].name][0]["num_validation"],
        "base": to_dict(study.base),
        "cpu_hours": sum(run["cpu_seconds"] for found in runs.values() for run in found) / 3600,
        "arms": arms,
    }


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds, its bootstrap interval and the values themselves."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "values": list(values)}


def by_type(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Test accuracy by question type: before, teacher, and the mean over seeds after; `lowest` is the worst seed's."""
    names = runs[0]["types_before"]
    return {
        name: {
            "before": runs[0]["types_before"][name],
            "teacher": runs[0]["types_teacher"][name],
            "after": sum(run["types_after"][name] for run in runs) / len(runs),
            "lowest": min(run["types_after"][name] for run in runs),
        }
        for name in names
    }


def _read_run(study: Study, arm: Any, seed: int, directory: Path) -> dict[str, Any]:
    run = run_config(study, arm, seed, directory).run_dir
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    records = _lines(run / "metrics.jsonl")
    types = {name: _types(run / f"test_{name}.jsonl") for name in ("before", "teacher", "after")}
    validation = _lines(run / "teacher_validation.jsonl")
    curve = curve_of(records, seed)
    return {
        "curve": curve,
        "seed": seed,
        "before": summary["accuracy"]["before"],
        "after": summary["accuracy"]["after"],
        "teacher": summary["accuracy"]["teacher"],
        "teacher_validation": sum(row["correct"] for row in validation) / len(validation),
        "num_test": summary["num_problems"],
        "num_validation": len(validation),
        "cpu_seconds": curve.cpu_seconds[-1],
        "watched": {name: [[r["step"], r[name]] for r in records if name in r] for name in WATCHED},
        **{f"types_{name}": values for name, values in types.items()},
    }


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    """A run as JSON: the parts that plots and readers need."""
    curve: Curve = run["curve"]
    kept = ("seed", "after", "cpu_seconds", "types_after", "watched")
    return {**{name: run[name] for name in kept}, "curve": {name: list(values) for name, values in _columns(curve)}}


def _columns(curve: Curve) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, getattr(curve, name)) for name in ("accuracy", "rollouts", "tokens", "cpu_seconds")]


def _types(path: Path) -> dict[str, float]:
    right: dict[str, list[bool]] = {}
    for row in _lines(path):
        right.setdefault(row["source"], []).append(row["correct"])
    return {name: sum(values) / len(values) for name, values in sorted(right.items())}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
