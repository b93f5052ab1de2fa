"""What a study found: every run's numbers gathered into one dictionary, `comparison.json`."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reopold_vl.compare.curves import Curve, cost_ratio, curve_of, ratio_text, reached
from reopold_vl.compare.paired import (
    SCORED_FOR_THE_LOG,
    by_type,
    interval,
    mean_lines,
    pair_name,
    pair_of,
    paired,
    rivals_of,
    to_teacher,
)
from reopold_vl.compare.runner import run_config
from reopold_vl.compare.study import Arm, Study
from reopold_vl.config_file import to_dict

TAIL = ("reward/p01", "reward/p10", "reward/min", "reward/below_1.72", "reward/below_5", "reward/below_10")
WATCHED = ("student/entropy", "rollout/length", "rollout/accuracy", "reopold/clipped", "mask/kept", "loss", *TAIL)

Runs = dict[str, list[dict[str, Any]]]


def summarise(study: Study, directory: Path) -> dict[str, Any]:
    """Curves, costs and final accuracies of a study whose runs are all finished; JSON without NaN or infinity.

    Curves and the rollouts to reach an accuracy are of the validation split, final accuracies of the test split; a
    share of the teacher's accuracy is a share of its accuracy on the same split.
    """
    runs = {arm.name: [_read_run(study, arm, seed, directory) for seed in study.all_seeds] for arm in study.arms}
    pairs = {arm.name: pair_of(study, arm) for arm in study.arms}
    one = runs[study.arms[0].name][0]
    return {
        "study": study.name,
        "title": study.title,
        "command": command_of(study),
        "commit": commit(),
        "versions": one["versions"],
        "seeds": study.seeds,
        "reference": study.reference,
        "thresholds": list(study.thresholds),
        "num_test": one["num_test"],
        "num_validation": one["num_validation"],
        "evaluated": list(one["curve"].rollouts),
        "base": to_dict(study.base),
        "cpu_hours": sum(run["cpu_seconds"] for found in runs.values() for run in found) / 3600,
        "arms": {arm.name: _arm(study, arm, runs, pairs) for arm in study.arms},
    }


def _arm(study: Study, arm: Arm, runs: Runs, pairs: dict[str, str]) -> dict[str, Any]:
    found = runs[arm.name]
    teacher, after = found[0]["teacher_validation"], [run["after"] for run in found]
    curves = [run["curve"] for run in found]
    rivals = rivals_of(study, arm, pairs)
    reference = next((runs[rival.name] for rival in rivals if rival.name == study.reference), None)
    spent: dict[str, Any] = {}
    for share in study.thresholds:
        wanted = share * teacher
        cost, seconds = reached(curves, wanted), reached(curves, wanted, "cpu_seconds")
        entry: dict[str, Any] = {
            "text": str(cost),
            "median": _finite(cost.median),
            "low": _finite(cost.low),
            "high": _finite(cost.high),
            "never": cost.censored,
            "cpu_text": str(seconds),
            "cpu_median": _finite(seconds.median),
        }
        if reference is not None:
            theirs = [run["curve"] for run in reference]
            ratio = cost_ratio(curves, theirs, wanted)
            entry |= {
                "ratio": [_finite(value) for value in ratio],
                "ratio_text": ratio_text(curves, theirs, ratio, wanted),
            }
        spent[f"{share:.2f}"] = entry
    return {
        "objective": arm.objective,
        "settings": dict(arm.settings),
        "changes": dict(arm.changes),
        "pair": pair_name(study, arm),
        "pair_number": list(dict.fromkeys(pairs.values())).index(pairs[arm.name]),
        "before": found[0]["before"],
        "teacher": found[0]["teacher"],
        "teacher_validation": teacher,
        "test_accuracy": interval(after),
        "validation_accuracy": interval([curve.accuracy[-1] for curve in curves]),
        "to_teacher": to_teacher([run["verdicts"] for run in found], found[0]["verdicts_teacher"]),
        "paired": {rival.name: paired(after, [run["after"] for run in runs[rival.name]]) for rival in rivals},
        "by_type": by_type(found),
        "reached": spent,
        "tokens": interval([curve.tokens[-1] for curve in curves]),
        "cpu_seconds": interval([curve.cpu_seconds[-1] for curve in curves]),
        "scores": _scores(arm, found),
        "watched": mean_lines(found),
        "runs": [_plain(run) for run in found],
    }


def _scores(arm: Arm, runs: Sequence[dict[str, Any]]) -> str:
    """Whether the teacher's scoring of sampled tokens is in an arm's CPU time: needed, left out, or counted."""
    if arm.objective not in SCORED_FOR_THE_LOG:
        return "needed"
    return "left out" if all(run["scores_logged"] for run in runs) else "counted"


def command_of(study: Study) -> str:
    """The command that makes this study: of a preset with its selection of arms, else with a configuration."""
    from reopold_vl.compare.studies import STUDIES

    program = "python -m reopold_vl.compare"
    names = [arm.name for arm in study.arms]
    for preset in STUDIES.values():
        known = [arm.name for arm in preset.arms]
        if preset.base == study.base and all(arm in preset.arms for arm in study.arms):
            arms = f" --arms {' '.join(map(shlex.quote, names))}" if len(names) < len(known) else ""
            seeds = f" --seeds {study.seeds}" if study.seeds != preset.seeds else ""
            name = f" --name {shlex.quote(study.name)}" if study.name != preset.name else ""
            return f"{program} --preset {preset.name}{arms}{seeds}{name}"
    arms = " ".join(map(shlex.quote, names))
    return f"{program} --config CONFIG --arms {arms} --seeds {study.seeds}"


def commit() -> str | None:
    """The commit of the code that runs, with `-dirty` behind it where files differ; None outside a git checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or not ours to read
        return None


def _read_run(study: Study, arm: Arm, seed: int, directory: Path) -> dict[str, Any]:
    run = run_config(study, arm, seed, directory).run_dir
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    records = _lines(run / "metrics.jsonl")
    answers = {name: _lines(run / f"test_{name}.jsonl") for name in ("before", "teacher", "after")}  # in one order
    types = {name: _types(rows) for name, rows in answers.items()}
    validation = _lines(run / "teacher_validation.jsonl")
    return {
        "curve": curve_of(records, seed, without_scores=arm.objective in SCORED_FOR_THE_LOG),
        "scores_logged": any("seconds/teacher_cpu" in record for record in records),
        "seed": seed,
        "before": summary["accuracy"]["before"],
        "after": summary["accuracy"]["after"],
        "teacher": summary["accuracy"]["teacher"],
        "teacher_validation": sum(row["correct"] for row in validation) / len(validation),
        "num_test": summary["num_problems"],
        "num_validation": len(validation),
        "versions": summary.get("versions", {}),
        "cpu_seconds": sum(record.get("seconds/cpu", 0.0) for record in records),
        "watched": {name: [[r["step"], r[name]] for r in records if r.get(name) is not None] for name in WATCHED},
        "verdicts": [row["correct"] for row in answers["after"]],
        "verdicts_teacher": [row["correct"] for row in answers["teacher"]],
        "types_num": {name: len(values) for name, values in types["before"].items()},
        **{f"types_{role}": {name: sum(v) / len(v) for name, v in found.items()} for role, found in types.items()},
    }


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    """A run as JSON: the parts that plots and readers need."""
    curve: Curve = run["curve"]
    kept = ("seed", "after", "cpu_seconds", "types_after")
    return {**{name: run[name] for name in kept}, "curve": {name: list(values) for name, values in _columns(curve)}}


def _columns(curve: Curve) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, getattr(curve, name)) for name in ("accuracy", "rollouts", "tokens", "cpu_seconds")]


def _types(rows: Sequence[dict[str, Any]]) -> dict[str, list[bool]]:
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["source"], []).append(row["correct"])
    return dict(sorted(right.items()))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
