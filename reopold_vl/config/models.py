"""Where student and teacher come from and how they are held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reopold_vl.config.base import require


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

    trust_remote_code: bool = False
    """Run Python code that a model directory brings along. Leave it off for anything you did not write."""

    def __post_init__(self) -> None:
        half = self.dtype != "float32" or self.compute != "float32"
        require(half or self.attention != "flash_attention_2", "attention", self.attention, "sdpa or eager in float32")


@dataclass(frozen=True)
class StudentConfig(ModelConfig):
    """The model that is trained."""

    freeze_vision: bool = False
    """Keep the vision tower and its projector fixed."""
