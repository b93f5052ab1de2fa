"""The settings of `python -m reopold_vl.serve_teacher`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reopold_vl.config.base import require
from reopold_vl.config.teacher import TOKEN_ENV


@dataclass(frozen=True)
class ServeConfig:
    """All settings of the server; the fields are the flags."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in (then set a token)."""

    port: int = 8765
    """Port; 0 takes a free one."""

    device: str = "auto"
    """auto takes cuda where there is one, else the CPU."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights."""

    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers."""

    token_env: str = TOKEN_ENV
    """Environment variable with the bearer token that clients must send; without such a variable none is asked for."""

    max_batch: int = 32
    """Answers in one forward pass."""

    max_body_mb: int = 64
    """Larger requests are refused unread."""

    max_pixels: int = 1280 * 28 * 28
    """Larger pictures are refused: they are not shrunk, because the client would not know."""

    max_tokens: int = 16384
    """Longest prompt and answer together."""

    max_new_tokens: int = 4096
    """Longest answer that may be asked for."""

    threads: int | None = None
    """CPU threads of torch; None leaves torch's choice."""

    trust_remote_code: bool = False
    """Run Python code that a model directory brings along. Leave it off for anything you did not write."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        for name in ("max_batch", "max_body_mb", "max_pixels", "max_tokens", "max_new_tokens"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
