"""The configuration of a training run: frozen dataclasses that the command line, config.yaml and presets share.

They end in `loop.py` and `assemble.py`: everything below takes plain values. Nothing here imports torch, so that
`--help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reopold_vl.config.base import ConfigError, require
from reopold_vl.config.data import DataConfig, ImageConfig
from reopold_vl.config.models import ModelConfig, StudentConfig
from reopold_vl.config.optim import OptimConfig
from reopold_vl.config.rollout import RolloutConfig
from reopold_vl.config.teacher import TeacherConfig
from reopold_vl.objectives import Reopold, ReverseKL

__all__ = [
    "ConfigError",
    "DataConfig",
    "ImageConfig",
    "ModelConfig",
    "OptimConfig",
    "RolloutConfig",
    "StudentConfig",
    "TeacherConfig",
    "TrainConfig",
]


@dataclass(frozen=True)
class TrainConfig:
    """Distil a teacher VLM into a student VLM on the student's own answers."""

    student: StudentConfig = field(default_factory=lambda: StudentConfig("zoo:student"))
    teacher: TeacherConfig = field(default_factory=lambda: TeacherConfig("zoo:teacher"))
    data: DataConfig = field(default_factory=DataConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    objective: Reopold | ReverseKL = field(default_factory=Reopold)
    optim: OptimConfig = field(default_factory=OptimConfig)

    steps: int = 60
    """Batches of rollouts."""

    prompts_per_step: int = 32
    """Prompts drawn for each batch; rollouts per batch are this times rollout.n."""

    seed: int = 0
    """Every random choice of the run follows from it."""

    eval_every: int = 10
    """Steps between measurements of the held-out accuracy; 0 measures only before and after."""

    save_every: int = 20
    """Steps between checkpoints; 0 saves only when stopped and at the end."""

    keep: int = 2
    """Checkpoints kept."""

    trackers: tuple[Literal["wandb", "trackio"], ...] = ()
    """Also log there (must be installed); metrics.jsonl and TensorBoard are always written."""

    threads: int | None = None
    """CPU threads of torch; None leaves torch's choice. A resumed run repeats bit by bit with the same number."""

    output_dir: Path = Path("runs")
    """Runs are written below this directory."""

    name: str = "embedded"
    """The run's directory below output_dir."""

    overwrite: bool = False
    """Delete the run that lies in output_dir/name first."""

    def __post_init__(self) -> None:
        require(self.student.dtype == "float32", "student.dtype", self.student.dtype, "float32 (see student.compute)")
        for name in ("steps", "prompts_per_step", "keep"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("eval_every", "save_every", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
        plain = Path(self.name).name == self.name and self.name not in ("", ".", "..")
        require(plain, "name", repr(self.name), "one directory name without a slash")
        require(
            self.optim.updates_per_batch <= self.prompts_per_step,
            "optim.updates_per_batch",
            self.optim.updates_per_batch,
            f"1 to prompts_per_step ({self.prompts_per_step})",
        )

    @property
    def run_dir(self) -> Path:
        return self.output_dir / self.name
