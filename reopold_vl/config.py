"""The configuration of a training run: frozen dataclasses that the command line, config.yaml and presets share.

They end in `loop.py` and `assemble.py`: everything below takes plain values. Nothing here imports torch, so that
`--help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reopold_vl.objectives import Reopold, ReverseKL


class ConfigError(ValueError):
    """A setting that cannot be; the message names the field, the value and what is allowed."""


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value}: allowed is {allowed}")


@dataclass(frozen=True)
class ModelConfig:
    """Where a model comes from and how it is held."""

    path: str
    """A local Hugging Face directory, a Hub id, or zoo:student / zoo:teacher (embedded)."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights; the student needs float32, because its updates are smaller than bf16 resolves."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products; bfloat16 is for GPUs."""

    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers."""

    device: str = "auto"
    """auto takes cuda where there is one, else the CPU."""

    freeze_vision: bool = False
    """Keep the vision tower and its projector fixed (student only)."""

    trust_remote_code: bool = False
    """Run Python code that a model directory brings along. Leave it off for anything you did not write."""

    def __post_init__(self) -> None:
        half = self.dtype != "float32" or self.compute != "float32"
        require(half or self.attention != "flash_attention_2", "attention", self.attention, "sdpa or eager in float32")


@dataclass(frozen=True)
class DataConfig:
    """Training rows and the rows held out to measure on."""

    path: str | None = None
    """A jsonl, json or parquet file, or a directory of jsonl or parquet files, with image/images, question (or TRL's
    prompt) and answer; None takes the embedded benchmark."""

    test_path: str | None = None
    """Rows for the final table; None holds them out from data.path."""

    validation_rows: int = 220
    """Held-out rows for the accuracy shown while training."""

    test_rows: int = 2200
    """Held-out rows for the final table (at most a fifth of data.path goes to both kinds together)."""

    limit: int | None = None
    """Read at most this many rows of data.path."""

    require_image: bool = True
    """Skip (and count) rows without an image; off, they become questions of text alone."""

    instruction: str = ""
    """Text that follows each question on a line of its own, such as a request for the answer's form."""

    def __post_init__(self) -> None:
        require(self.validation_rows >= 0, "data.validation_rows", self.validation_rows, "0 or more")
        require(self.test_rows >= 0, "data.test_rows", self.test_rows, "0 or more")
        require(self.limit is None or self.limit > 0, "data.limit", self.limit, "1 or more")


@dataclass(frozen=True)
class ImageConfig:
    """The pixel budget of one image, shared by student and teacher."""

    min_pixels: int = 4 * 28 * 28
    """Smaller images are enlarged to this area."""

    max_pixels: int = 1280 * 28 * 28
    """Larger images are shrunk to this area; a visual token covers 28x28 (Qwen2.5-VL) or 32x32 pixels (Qwen3-VL)."""

    allow_url: bool = False
    """Fetch images given as http(s) addresses."""

    def __post_init__(self) -> None:
        require(0 < self.min_pixels <= self.max_pixels, "images.min_pixels", self.min_pixels, "1 to images.max_pixels")


@dataclass(frozen=True)
class RolloutConfig:
    """How the student answers: always at temperature 1 over the full vocabulary, as the objective assumes."""

    n: int = 4
    """Answers to each prompt."""

    max_new_tokens: int = 64
    """Longest answer, in tokens; longer ones are cut and counted as truncated."""

    max_prompt_tokens: int = 4096
    """Prompts with more tokens are skipped and counted."""

    rows_at_once: int = 256
    """Answers sampled together (at least n); another number draws other answers from the same seed."""

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens", "max_prompt_tokens", "rows_at_once"):
            require(getattr(self, name) >= 1, f"rollout.{name}", getattr(self, name), "1 or more")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW on the student."""

    lr: float = 5e-4
    """Peak learning rate."""

    schedule: Literal["constant_with_warmup", "cosine", "linear"] = "constant_with_warmup"
    """Learning-rate schedule over all updates."""

    warmup_updates: int = 0
    """Updates over which the learning rate rises from 0."""

    weight_decay: float = 0.0
    """Decoupled weight decay of matrices (never of norms and biases)."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    updates_per_batch: int = 1
    """Updates on each batch of rollouts; more than one makes the ratio rho differ from 1."""

    rows_at_once: int = 128
    """Answers in one forward and backward pass (micro-batch); changes memory, not the result."""

    max_bad_steps: int = 5
    """Stop after this many steps in a row with a non-finite loss or gradient."""

    def __post_init__(self) -> None:
        require(0 < self.lr < 1, "optim.lr", self.lr, "above 0 and below 1")
        require(self.max_grad_norm > 0, "optim.max_grad_norm", self.max_grad_norm, "above 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_updates >= 0, "optim.warmup_updates", self.warmup_updates, "0 or more")
        require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers in [0, 1)")
        for name in ("updates_per_batch", "rows_at_once", "max_bad_steps"):
            require(getattr(self, name) >= 1, f"optim.{name}", getattr(self, name), "1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """Distil a teacher VLM into a student VLM on the student's own answers."""

    student: ModelConfig = field(default_factory=lambda: ModelConfig("zoo:student"))
    teacher: ModelConfig = field(default_factory=lambda: ModelConfig("zoo:teacher"))
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
