"""What a study compares: arms that differ from one configuration in named settings, on the same seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.config_file import from_dict, to_dict

VARIANT = "variant:"  # before the name of a model of reopold_vl.zoo.variants, as a student's or teacher's path


@dataclass(frozen=True)
class Arm:
    """One line of a comparison: an objective with its settings, and what else differs from the study's base."""

    name: str
    objective: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the objective that differ from its defaults."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the run that differ from the base, as in config.yaml: {"optim": {"lr": 1e-4}}."""

    def configure(self, base: TrainConfig) -> TrainConfig:
        """The run's configuration; raises ConfigError for settings that do not exist or cannot be."""
        values = merged(to_dict(base), {**self.changes, "objective": {}})
        values["objective"] = {"name": self.objective, **self.settings}
        try:
            return from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"arm {self.name}: {error}") from None


@dataclass(frozen=True)
class Study:
    """Arms on one base configuration. `reference` is the arm that the others' sample counts are compared with."""

    name: str
    title: str
    base: TrainConfig
    arms: tuple[Arm, ...]
    seeds: int
    reference: str | None = None
    thresholds: tuple[float, ...] = (0.90, 0.95, 0.99)
    """Shares of the teacher's accuracy whose cost in rollouts is reported."""
    first_seed: int = 0
    """Seeds go from here; what settings were chosen on has seeds that no reported run has."""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"study {self.name}: two arms are called {twice!r}: allowed is one of each name")
        if self.reference is not None and self.reference not in names:
            raise ConfigError(f"study {self.name}: reference is {self.reference!r}: allowed are {', '.join(names)}")
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}: allowed is 1 or more")

    @property
    def all_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    def run(self, arm: Arm, seed: int) -> TrainConfig:
        """The configuration of one run of the study; its name says which."""
        return dataclasses.replace(arm.configure(self.base), seed=seed, name=f"{arm.name}-seed{seed}")

    def variants(self) -> list[str]:
        """Models that the runs need beside the shipped ones, in the order of the arms."""
        runs = [self.run(arm, 0) for arm in self.arms]
        paths = [path for run in runs for path in (run.student.path, run.teacher.path)]
        return list(dict.fromkeys(path.removeprefix(VARIANT) for path in paths if path.startswith(VARIANT)))


def with_variants(config: TrainConfig, place: Path) -> TrainConfig:
    """The configuration with `variant:NAME` replaced by the directory PLACE/NAME."""
    changed = {}
    for role in ("student", "teacher"):
        model = getattr(config, role)
        if model.path.startswith(VARIANT):
            changed[role] = dataclasses.replace(model, path=str(place / model.path.removeprefix(VARIANT)))
    return dataclasses.replace(config, **changed)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` laid over them, dictionaries field by field."""
    result = dict(values)
    for name, change in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, change) if isinstance(change, Mapping) and isinstance(inner, Mapping) else change
    return result
