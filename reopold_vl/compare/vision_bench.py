"""The models of finished runs: loaded as training had them, and named by all that their figures depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reopold_vl import __version__
from reopold_vl.assemble_models import checked_teacher, load_one
from reopold_vl.compare.vision_measure import Advantages, measure, problems_of
from reopold_vl.config import DistributedConfig, LoRAConfig, TrainConfig
from reopold_vl.config.models import ModelConfig
from reopold_vl.config.teacher import is_url
from reopold_vl.config_file import to_dict
from reopold_vl.models import VisionLanguageModel
from reopold_vl.sources import resolve
from reopold_vl.student import prepare_student
from reopold_vl.teachers import Answerer, Teacher
from reopold_vl.teachers.local import LocalTeacher


class Bench:
    """The problems and the teacher of one pair and data, loaded when they are first asked for, and its students."""

    def __init__(self, config: TrainConfig, num: int, threshold: float) -> None:
        # Measuring is done in one process, whatever the run was trained in.
        self.config = replace(config, distributed=DistributedConfig())
        self.threshold = threshold
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.problems = problems_of(self.config, num)
        self._teacher: Teacher | None = None

    def teacher(self, student: VisionLanguageModel) -> Teacher:
        """The run's teacher, checked against a student; raises what training would."""
        if self._teacher is None:
            self._teacher, _ = checked_teacher(self.config, student, self.problems.train)
        return self._teacher

    def student(self, path: str | None = None) -> VisionLanguageModel:
        """The student before training, or what training left in the directory `path`."""
        own = replace(self.config.student, feature_cache_mb=0, lora=LoRAConfig(), gradient_checkpointing=False)
        if path is not None:
            return load_one(self.config, replace(own, path=path, adapter=None))
        model = load_one(self.config, own)
        prepare_student(model, adapter=own.adapter)
        return model

    def measure_student(self, model: VisionLanguageModel, progress: Callable[[int], object]) -> dict[str, Any]:
        rows = self.config.optim.rows_at_once
        return self._measure(model, Advantages(model, self.teacher(model), rows), progress)

    def measure_teacher(self, student: VisionLanguageModel, progress: Callable[[int], object]) -> dict[str, Any]:
        """The teacher's; its tokens are at hand where it is one model in this process."""
        teacher = self.teacher(student)
        local = teacher.model if isinstance(teacher, LocalTeacher) else None
        looked = Advantages(local, None, self.config.optim.rows_at_once) if local else None
        found = self._measure(teacher, looked, progress)
        found["visual_advantage"]["teacher"] = found["visual_advantage"]["own"]
        return found

    def _measure(self, answerer: Answerer, looked: Advantages | None, progress: Any) -> dict[str, Any]:
        rollout = self.config.rollout
        return measure(
            answerer,
            self.problems,
            looked,
            max_new_tokens=rollout.max_new_tokens,
            rows_at_once=rollout.rows_at_once,
            threshold=self.threshold,
            progress=progress,
        )


def keys_of(config: TrainConfig, run_dir: Path, num: int, threshold: float) -> dict[str, str]:
    """Keys of a finished run's measurements by role, and of what its `pair` and data are.

    Raises ModelError for a model that is not there.
    """
    values = to_dict(config)
    images = {name: values["images"][name] for name in ("min_pixels", "max_pixels", "allow_url")}
    routes = [path for _, path in config.teacher.routes_by_source]
    common: dict[str, Any] = {
        "version": __version__,
        "data": values["data"],
        "files": [_state(Path(path)) for path in (config.data.path, config.data.test_path) if path],
        # Rows of a file are held out by the seed, and such that enough are left for a step.
        "split": [config.seed, config.prompts_per_step] if config.data.path else 0,
        "images": images,
        "lengths": [config.rollout.max_new_tokens, config.rollout.max_prompt_tokens],
        "num": num,
        "threshold": threshold,
        "teacher": {**_model(config.teacher), "routes": config.teacher.routes, "align": config.teacher.align},
        "teacher_files": [_weights(path) for path in (config.teacher.path, *routes)],
    }
    student = _model(config.student)
    before = {**student, "adapter": config.student.adapter, "weights": _weights(config.student.path)}
    if config.student.adapter is not None:
        before["adapter_weights"] = _state(Path(config.student.adapter).expanduser())
    # Without the path of the run: a study that was moved keeps its measurements.
    after = {**student, "run": run_dir.name, "weights": _state(run_dir / "student")}
    after["base"] = before["weights"]  # of an adapter
    return {
        "pair": _digest({**common, "student": before}),
        "before": f"before-{_digest({**common, 'student': before})}",
        "after": f"after-{run_dir.name}-{_digest({**common, 'student': after})}",
        "teacher": f"teacher-{_digest(common)}",
    }


def _model(model: ModelConfig) -> dict[str, Any]:
    return {name: getattr(model, name) for name in ("path", "dtype", "compute", "attention")}


def _weights(path: str) -> list[list[Any]]:
    """The state of a local model's files; of what is elsewhere only the name can be told, which is in the settings."""
    if is_url(path):
        return []
    place = Path(resolve(path))
    return _state(place) if place.is_dir() else []


def _state(place: Path) -> list[list[Any]]:
    """Name, size and time of change of a file, or of all files below a directory: other weights, another state."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    found = [(file, file.stat()) for file in files if not file.is_dir()]
    return [[str(file.relative_to(place)), stat.st_size, stat.st_mtime_ns] for file, stat in found]


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]
