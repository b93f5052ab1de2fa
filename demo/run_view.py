"""A training run's directory as the page shows it, read again while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.errors import DemoError
from demo.places import Places

PLOTS = ("accuracy.png", "reward.png", "mask.png")
MAX_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class TrainingRun:
    """What lies in a run's directory so far.

    `metrics` has one entry per step that was logged; `rollouts` are the newest sample rollouts; `plots` the paths of
    the pictures that a finished run drew; `summary` is summary.json's content ({} while the run goes on).
    """

    directory: Path
    metrics: tuple[Mapping[str, float], ...]
    rollouts: tuple[Mapping[str, Any], ...] = ()
    plots: tuple[Path, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        return next((record[name] for record in reversed(self.metrics) if name in record), None)

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) wherever the metric was logged."""
        return [(int(record["step"]), record[name]) for record in self.metrics if name in record]


def stamp(directory: Path, places: Places) -> str:
    """Changes whenever one of the run's files does."""
    files = [*_files(directory, places), *(directory / "plots" / name for name in PLOTS)]
    states = [file.stat() if file.is_file() else None for file in files]
    return f"{directory} {[state and (state.st_mtime_ns, state.st_size) for state in states]}"


def _files(directory: Path, places: Places) -> list[Path]:
    files = [directory / name for name in ("metrics.jsonl", "sample_rollouts.jsonl", "summary.json")]
    for file in files:
        places.require(file)
    return files


def load(directory: Path, places: Places, num_rollouts: int = 8) -> TrainingRun:
    """Read the run; a last line that is being written is left out. Raises DemoError for files that are no run's."""
    from reopold_vl.runlog import read_metrics, read_step_file

    files = _files(directory, places)
    for file in files:
        if file.exists() and file.stat().st_size > MAX_FILE_BYTES:
            raise DemoError(f"{file.name}: {file.stat().st_size / 2**20:.0f} MB; allowed are {MAX_FILE_BYTES // 2**20}")
    try:
        metrics, rollouts = read_metrics(files[0]), read_step_file(files[1])
        summary = json.loads(files[2].read_text(encoding="utf-8")) if files[2].is_file() else {}
    except (ValueError, OSError) as error:
        raise DemoError(f"{directory.name}: {str(error).replace(f'{directory}/', '')}") from error
    plots = [directory / "plots" / name for name in PLOTS]
    return TrainingRun(
        directory=directory,
        metrics=tuple(metrics),
        rollouts=tuple(record for record in rollouts[-num_rollouts:] if _whole(record)),
        plots=tuple(path for path in plots if path.is_file() and not path.is_symlink()),
        summary=summary if isinstance(summary, dict) else {},
    )


def _whole(record: Mapping[str, Any]) -> bool:
    """Whether a stored rollout has its lists, equally long."""
    names = ("tokens", "rewards", "student_logprobs", "teacher_logprobs", "kept")
    lists = [record.get(name) for name in names]
    return all(isinstance(values, list) and len(values) == len(lists[0] or []) for values in lists)


def as_json(run: TrainingRun) -> dict[str, Any]:
    """The run without its pictures; metrics that are no number are null."""
    import math

    metrics = [{k: v if math.isfinite(v) else None for k, v in record.items()} for record in run.metrics]
    rollouts = [{k: v for k, v in record.items() if k != "images"} for record in run.rollouts]
    return {"metrics": metrics, "rollouts": rollouts, "summary": dict(run.summary)}
