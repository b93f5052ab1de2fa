"""The module `vllm` as far as an engine in the same process needs it: signatures, states and refusals of 0.33.0."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from fake_vllm import FakeCore

# Keyword arguments of LLM and of its EngineArgs, out of all that there are.
ENGINE_ARGS = {
    "dtype",
    "max_model_len",
    "gpu_memory_utilization",
    "enable_sleep_mode",
    "enforce_eager",
    "trust_remote_code",
    "logprobs_mode",
    "mm_processor_kwargs",
    "distributed_executor_backend",
}


@dataclass(kw_only=True)
class SamplingParams:
    """Names, defaults and checks of `vllm.SamplingParams`; unknown names are refused."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    logit_bias: dict[int, float] | None = None

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"n must be 1 when using greedy sampling, got {self.n}.")
        assert self.seed is None or -(2**63) <= self.seed < 2**63


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class LLM:
    """`vllm.LLM` in this process. Level-2 sleep really drops the weights; work while asleep is refused."""

    made: list[LLM]

    def __init__(self, model: str, **arguments: Any) -> None:
        unknown = set(arguments) - ENGINE_ARGS
        if unknown:
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument {unknown.pop()!r}")
        assert os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0", "an iterator cannot go to another process"
        limits = arguments.get("mm_processor_kwargs") or {}
        self.core = FakeCore(model, max_model_len=arguments["max_model_len"], max_pixels=limits.get("max_pixels"))
        self.core.processor.image_processor.size["shortest_edge"] = limits.get("min_pixels", 56 * 56)
        self.arguments = arguments
        self.asleep: set[str] = set()
        self.calls: list[str] = []
        self.asked: list[tuple[Any, SamplingParams]] = []
        self.llm_engine = SimpleNamespace(
            reset_encoder_cache=self.core.reset_encoder_cache, reset_mm_cache=lambda: None
        )
        type(self).made.append(self)

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        assert self.arguments["enable_sleep_mode"] and level in (1, 2) and mode in ("abort", "wait", "keep")
        self.calls.append(f"sleep {level}")
        self.asleep = {"weights", "kv_cache"}
        if level == 2:
            self.core.drop_weights()

    def wake_up(self, tags: list[str] | None = None) -> bool:
        assert set(tags or ()) <= {"weights", "kv_cache", "scheduling"}
        self.calls.append(f"wake {tags}")
        self.asleep -= set(tags or self.asleep)
        return not self.asleep

    def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        assert method == "reload_weights" and "weights" not in self.asleep, "weights are written to unmapped memory"
        self.calls.append(method)
        self.core.reload_weights(*args, **(kwargs or {}))
        return [None]

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        return self.core.reset_prefix_cache()

    def generate(
        self,
        prompts: Sequence[dict[str, Any]],
        sampling_params: Sequence[SamplingParams] | SamplingParams | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
    ) -> list[Any]:
        assert not self.asleep, f"generate while {self.asleep} sleeps"
        assert not self.core.prefixes_of_old_weights, "prefixes of the old weights are still cached"
        assert isinstance(sampling_params, Sequence) and len(sampling_params) == len(prompts)
        self.asked += zip(prompts, sampling_params, strict=True)
        self.calls.append("generate")
        return [self.one(prompt, params) for prompt, params in zip(prompts, sampling_params, strict=True)]

    def one(self, prompt: dict[str, Any], params: SamplingParams) -> Any:
        assert set(prompt) <= {"prompt_token_ids", "multi_modal_data", "mm_processor_kwargs", "multi_modal_uuids"}
        ids, vision = self.core.expand(prompt["prompt_token_ids"], prompt.get("multi_modal_data", {}).get("image", []))
        self.core.require_room(ids)
        outputs = []
        for index in range(params.n):
            made = self.core.sample(ids, vision, params, None if params.seed is None else params.seed + index)
            logprobs = [{t: Logprob(v)} for t, v in zip(made["token_ids"], made["logprobs"], strict=True)]
            outputs.append(
                SimpleNamespace(
                    index=index,
                    text="",
                    token_ids=made["token_ids"],
                    logprobs=logprobs if params.logprobs is not None else None,
                    finish_reason=made["finish_reason"],
                )
            )
        return SimpleNamespace(prompt_token_ids=ids, prompt_logprobs=None, outputs=outputs[::-1], finished=True)


def fake_module() -> ModuleType:
    """A module to put under the name `vllm` into sys.modules; `LLM.made` lists the engines made with it."""
    module: Any = ModuleType("vllm")
    module.LLM = type("LLM", (LLM,), {"made": []})
    module.SamplingParams = SamplingParams
    module.__spec__ = SimpleNamespace(name="vllm")
    return module
