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
from reopold_vl.config.distributed import DistributedConfig
from reopold_vl.config.models import LoRAConfig, ModelConfig, StudentConfig
from reopold_vl.config.optim import OptimConfig
from reopold_vl.config.rollout import RolloutConfig
from reopold_vl.config.teacher import TeacherConfig, is_url
from reopold_vl.objectives import AnyObjective, Reopold

__all__ = [
    "ConfigError",
    "DataConfig",
    "DistributedConfig",
    "ImageConfig",
    "LoRAConfig",
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
    objective: AnyObjective = field(default_factory=Reopold)
    optim: OptimConfig = field(default_factory=OptimConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    steps: int = 60
    """Batches of rollouts."""

    prompts_per_step: int = 32
    """Prompts drawn for each batch; rollouts per batch are this times rollout.n."""

    seed: int = 0
    """Every random choice of the run follows from it."""

    eval_every: int = 10
    """Steps between measurements of the held-out accuracy; 0 measures only before and after."""

    eval_steps: tuple[int, ...] = ()
    """Measure after these steps, before the first and after the last one, in place of eval_every."""

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
        self._require_fp32_updates()
        for name in ("steps", "prompts_per_step", "keep"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("eval_every", "save_every", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        outside = [step for step in self.eval_steps if not 1 <= step <= self.steps]
        require(not outside, "eval_steps", str(outside)[1:-1], f"1 to steps ({self.steps})")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
        plain = Path(self.name).name == self.name and self.name not in ("", ".", "..")
        require(plain, "name", repr(self.name), "one directory name without a slash")
        require(
            self.optim.updates_per_batch <= self.prompts_per_step,
            "optim.updates_per_batch",
            self.optim.updates_per_batch,
            f"1 to prompts_per_step ({self.prompts_per_step})",
        )
        # A process that has an image's features would leave out layers that all must run together.
        whole = self.distributed.strategy != "fsdp"
        cached = self.student.feature_cache_mb
        require(whole or cached == 0, "student.feature_cache_mb", cached, "0 with distributed.strategy=fsdp")
        cached = self.teacher.feature_cache_mb
        whole = not self.distributed.shard_teacher
        require(whole or cached == 0, "teacher.feature_cache_mb", cached, "0 with distributed.shard_teacher")
        single = not (self.teacher.routes or is_url(self.teacher.path))
        require(whole or single, "distributed.shard_teacher", True, "False, or one single teacher in these processes")

    def _require_fp32_updates(self) -> None:
        """Weights that move in bf16 alone would not move at all: something in fp32 must collect the updates."""
        dtype, master = self.student.dtype, self.optim.master
        kept = self.student.adapts or master == "float32"  # adapters are fp32 themselves
        allowed = "float32, or bfloat16 with optim.master=float32 or LoRA (see also student.compute)"
        require(dtype == "float32" or (dtype == "bfloat16" and kept), "student.dtype", dtype, allowed)
        wanted = dtype == "bfloat16" and not self.student.adapts
        allowed = "none: the weights that are trained are fp32 already"
        require(master == "none" or wanted, "optim.master", master, allowed)

    def measures(self, step: int) -> bool:
        """Whether the held-out accuracy is measured after so many steps."""
        named = step in self.eval_steps if self.eval_steps else self.eval_every > 0 and step % self.eval_every == 0
        return named or step in (0, self.steps)

    @property
    def run_dir(self) -> Path:
        return self.output_dir / self.name
