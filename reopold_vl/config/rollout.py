"""How the student answers."""

from __future__ import annotations

from dataclasses import dataclass

from reopold_vl.config.base import require


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
