"""Where the teacher is: in this process, on another device, or behind a URL."""

from __future__ import annotations

from dataclasses import dataclass

from reopold_vl.config.models import ModelConfig


@dataclass(frozen=True)
class TeacherConfig(ModelConfig):
    """The model that says how likely each of the student's tokens is."""
