"""What a run counts across its steps and carries through checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


class TrainingDiverged(RuntimeError):
    """Too many steps in a row with a non-finite loss or gradient."""


@dataclass
class Progress:
    """Counts since the run's first start; seconds are wall clock, summed over resumptions."""

    step: int = 0
    rollouts: int = 0
    skipped_prompts: int = 0
    skipped_updates: int = 0
    bad_steps: int = 0  # in a row
    train_seconds: float = 0.0
    total_seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic, repr=False)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the counts of a checkpoint's state record."""
        for name, value in state.items():
            setattr(self, name, value)

    def state(self) -> dict[str, Any]:
        values = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
        return {**values, "total_seconds": self.seconds_so_far()}

    def seconds_so_far(self) -> float:
        return self.total_seconds + time.monotonic() - self._started

    def count_step(self, *, rollouts: int, skipped: int, seconds: float) -> None:
        """Note a finished step and how many of its updates were skipped."""
        self.step += 1
        self.rollouts += rollouts
        self.skipped_updates += skipped
        self.train_seconds += seconds

    def metrics(self) -> dict[str, float]:
        """The running totals, for the log."""
        return {
            "rollout/total": self.rollouts,
            "rollout/skipped_prompts": self.skipped_prompts,
            "optim/skipped": self.skipped_updates,
        }

    def check_health(self, *, bad: bool, allowed: int) -> None:
        """Raises TrainingDiverged after `allowed` bad steps in a row: NaN rewards, or an update that was skipped."""
        self.bad_steps = self.bad_steps + 1 if bad else 0
        if self.bad_steps >= allowed:
            raise TrainingDiverged(
                f"stopped at step {self.step}: {self.bad_steps} steps in a row had NaN rewards or lost updates; "
                "lower optim.lr in config.yaml and --resume from the last checkpoint, or start over with --overwrite"
            )


class Stopwatch:
    """Wall seconds of the parts of one step: `with watch("rollout"): ...` becomes `seconds/rollout`.

    `cpu_seconds` are what this process has computed since the step began, on all its threads.
    `with watch.cpu("teacher"): ...` puts a piece of work's share into `cpu_parts`, as `seconds/teacher_cpu`.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_parts: dict[str, float] = {}
        self._name, self._start = "", 0.0
        self._cpu_start = time.process_time()

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self._cpu_start

    @contextmanager
    def cpu(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        place = f"seconds/{name}_cpu"
        self.cpu_parts[place] = self.cpu_parts.get(place, 0.0) + time.process_time() - start

    def __call__(self, name: str) -> Stopwatch:
        self._name = f"seconds/{name}"
        return self

    def __enter__(self) -> None:
        self._start = time.monotonic()

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + time.monotonic() - self._start
