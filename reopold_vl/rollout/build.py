"""The engine that the configuration names."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from reopold_vl.models import VisionLanguageModel
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.rollout.vllm import VLLMEngine, missing, start_llm
from reopold_vl.rollout.vllm_answers import EngineError
from reopold_vl.rollout.vllm_server import VLLMServerEngine
from reopold_vl.sources import resolve
from reopold_vl.vllm_http import VLLMClient

KEY_VARIABLE = "VLLM_API_KEY"

EngineKind = Literal["hf", "vllm", "vllm-server"]


def require_engine(kind: str) -> None:
    """Raises EngineError where the engine's package is missing: before minutes have gone into the run."""
    if kind == "vllm" and find_spec("vllm") is None:
        raise EngineError(missing("not installed"))


def build_engine(
    student: VisionLanguageModel,
    *,
    kind: EngineKind,
    rows_at_once: int,
    longest: int,
    gpu_memory: float,
    sleep: bool,
    max_model_len: int | None,
    eager: bool,
    url: str | None,
    weights_dir: str | None,
    timeout_seconds: float,
) -> HFEngine | VLLMEngine | VLLMServerEngine:
    """An engine for the student; `longest` is the number of tokens of the longest prompt and answer together.

    Raises EngineError for a package or a server that is not there.
    """
    if kind == "hf":
        return student.engine(rows_at_once=rows_at_once)
    guards = {"eos_ids": student.eos_ids, "banned_ids": student.banned_ids, "pad_id": student.pad_id}
    if kind == "vllm":
        llm = start_llm(
            resolve(student.path),
            student.encoder,
            dtype=student.policy.precision,
            max_model_len=max_model_len or longest,
            gpu_memory=gpu_memory,
            sleep=sleep,
            eager=eager,
        )
        return VLLMEngine(llm, student.policy, student.encoder, sleep=sleep, **guards)
    if url is None or weights_dir is None:
        raise EngineError("rollout.engine is vllm-server: it needs rollout.vllm.url and rollout.vllm.weights_dir")
    client = VLLMClient(url, token=os.environ.get(KEY_VARIABLE), timeout=timeout_seconds)
    return VLLMServerEngine(client, student.policy, student.encoder, directory=Path(weights_dir), **guards)
