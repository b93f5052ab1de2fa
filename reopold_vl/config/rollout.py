"""How the student answers, and with which engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from reopold_vl.config.base import require


@dataclass(frozen=True)
class VLLMConfig:
    """vLLM as the student's engine (rollout.engine vllm: in this process; vllm-server: on GPUs of its own)."""

    gpu_memory: float = 0.35
    """Share of the GPU's memory that vLLM takes in this process: its copy of the weights and its cache."""

    sleep: bool = True
    """Give that memory back while the student learns; the weights are then handed over at every step."""

    max_model_len: int | None = None
    """Longest prompt and answer together, in tokens; None: rollout.max_prompt_tokens + rollout.max_new_tokens."""

    eager: bool = False
    """No CUDA graphs: starts sooner and takes less memory, answers more slowly."""

    url: str | None = None
    """Where vllm-server is, such as http://gpu-7:8000; a key goes into $VLLM_API_KEY."""

    weights_dir: str | None = None
    """Directory that vllm-server sees under the same path; the student's weights are handed over through it."""

    timeout_seconds: float = 600.0
    """Longest wait for an answer of vllm-server."""

    def __post_init__(self) -> None:
        require(0 < self.gpu_memory < 1, "rollout.vllm.gpu_memory", self.gpu_memory, "above 0 and below 1")
        longest = self.max_model_len
        require(longest is None or longest >= 1, "rollout.vllm.max_model_len", longest, "1 or more")
        require(self.timeout_seconds > 0, "rollout.vllm.timeout_seconds", self.timeout_seconds, "above 0")
        web = self.url is None or self.url.startswith(("http://", "https://"))
        require(web, "rollout.vllm.url", self.url, "an address such as http://localhost:8000")
        require("@" not in (self.url or ""), "rollout.vllm.url", "not shown", "an address alone (key: $VLLM_API_KEY)")


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
    """Answers sampled together (at least n); changes memory and speed."""

    engine: Literal["hf", "vllm", "vllm-server"] = "hf"
    """What samples: the student's own module, vLLM beside it on the same GPU, or a vLLM server (docs/vllm.md)."""

    overlap: Literal["none", "parts", "step"] = "none"
    """What the student samples while a teacher on a server or a device of its own scores: nothing, the next
    rows_at_once answers of the step, or the next step's too (from the weights before this step's update)."""

    vllm: VLLMConfig = field(default_factory=VLLMConfig)

    @property
    def engine_settings(self) -> dict[str, Any]:
        """What `rollout.build.build_engine` is given beside the student."""
        longest = self.max_prompt_tokens + self.max_new_tokens
        return {"kind": self.engine, "rows_at_once": self.rows_at_once, "longest": longest, **vars(self.vllm)}

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens", "max_prompt_tokens", "rows_at_once"):
            require(getattr(self, name) >= 1, f"rollout.{name}", getattr(self, name), "1 or more")
        longest, needed = self.vllm.max_model_len, self.max_prompt_tokens + self.max_new_tokens
        fits = self.engine == "hf" or longest is None or longest >= needed
        require(fits, "rollout.vllm.max_model_len", longest, f"at least {needed}, the longest prompt and answer")
        awake = self.engine != "vllm" or not self.vllm.sleep
        require(awake or self.overlap == "none", "rollout.overlap", self.overlap, "none with rollout.vllm.sleep")
        if self.engine == "vllm-server":
            require(self.vllm.url is not None, "rollout.vllm.url", None, "the server's address")
            require(self.vllm.weights_dir is not None, "rollout.vllm.weights_dir", None, "a directory that both see")
