"""Where student and teacher come from and how they are held."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from reopold_vl.config.base import require


@dataclass(frozen=True)
class ModelConfig:
    """Where a model comes from and how it is held."""

    path: str
    """A local Hugging Face directory (a LoRA adapter's as well), a Hub id, or zoo:student / zoo:teacher (embedded)."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights. A student in bfloat16 needs optim.master=float32 or LoRA: a plain update is smaller
    than bf16 resolves."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products; bfloat16 is for GPUs."""

    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers."""

    device: str = "auto"
    """auto takes cuda where there is one, else the CPU."""

    feature_cache_mb: int = 0
    """Keep the vision tower's output for up to this many MB of images (0: off), so that each image is encoded once a
    run. The tower must be fixed: the teacher's is, the student's with freeze_vision and freeze_projector, or LoRA."""

    trust_remote_code: bool = False
    """Run Python code that a model directory brings along. Leave it off for anything you did not write."""

    def __post_init__(self) -> None:
        half = self.dtype != "float32" or self.compute != "float32"
        require(half or self.attention != "flash_attention_2", "attention", self.attention, "sdpa or eager in float32")
        require(self.feature_cache_mb >= 0, "feature_cache_mb", self.feature_cache_mb, "0 (off) or more")

    @property
    def loading(self) -> dict[str, Any]:
        """The settings that a model in this process is loaded with, all but its path."""
        return {field.name: getattr(self, field.name) for field in fields(ModelConfig) if field.name != "path"}


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters (Hu et al., arXiv 2106.09685; peft): W + alpha / rank * B A, and only A and B are trained."""

    rank: int = 0
    """Rank of the adapters; 0 trains the weights themselves."""

    alpha: float = 32.0
    """Scale: an adapter's output is multiplied by alpha / rank."""

    dropout: float = 0.0
    """Share of an adapter's inputs dropped in the gradient pass, which makes the ratio rho differ from 1."""

    targets: tuple[str, ...] = ()
    """Names of linear layers, or of what they lie in (q_proj, layers.3, visual); none takes all linear layers of the
    language model."""

    def __post_init__(self) -> None:
        require(self.rank >= 0, "student.lora.rank", self.rank, "0 (train all weights) or more")
        require(self.alpha > 0, "student.lora.alpha", self.alpha, "above 0")
        require(0 <= self.dropout < 1, "student.lora.dropout", self.dropout, "0 to below 1")


@dataclass(frozen=True)
class StudentConfig(ModelConfig):
    """The model that is trained."""

    lora: LoRAConfig = field(default_factory=LoRAConfig)

    adapter: str | None = None
    """Start from the LoRA adapter in this directory, which must be one of student.path; its own rank and targets
    hold."""

    freeze_vision: bool = False
    """Keep the vision tower fixed (its projector is another matter)."""

    freeze_projector: bool = False
    """Keep the layers that map the tower's output to the language model fixed."""

    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping what it computed: a fraction of the memory for
    about a third more time in the gradient pass; the same gradients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        frozen = (self.freeze_vision and self.freeze_projector) or self.adapts
        require(
            frozen or self.feature_cache_mb == 0,
            "student.feature_cache_mb",
            self.feature_cache_mb,
            "0 unless the features are fixed (student.freeze_vision with student.freeze_projector, or student.lora)",
        )

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained rather than the weights."""
        return self.lora.rank > 0 or self.adapter is not None
