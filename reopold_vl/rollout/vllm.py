"""vLLM in the trainer's own process and on its own GPU: fast answers, weights handed over in memory.

Written against the source of vLLM 0.33.0 (`entrypoints/llm.py`, `sampling_params.py`, `outputs.py`,
`v1/worker/gpu_model_runner.py`); docs/vllm.md says what has been run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from reopold_vl import families
from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptEncoder
from reopold_vl.rollout.vllm_answers import (
    CHECKED_ROLLOUTS,
    EngineError,
    answer,
    compare,
    request_seed,
    sampling_settings,
)
from reopold_vl.rollout.vllm_weights import checkpoint_weights
from reopold_vl.types import Prompt, Rollout
from reopold_vl.vllm_http import require_prompt, unexpanded_ids


class VLLMEngine:
    """Samples with `vllm.LLM` beside the student on one GPU.

    `sleep` gives vLLM's memory back while the student learns (its level 2: weights and cache are dropped, so weights
    are handed over before every generation; else only after an update). `exact` is false and entropies are NaN: the
    trainer scores the answers once more. Log-probs are vLLM's raw ones, at T = 1 over the full vocabulary.
    """

    exact = False

    def __init__(
        self,
        llm: Any,
        policy: Policy,
        encoder: PromptEncoder,
        *,
        eos_ids: Sequence[int],
        banned_ids: Sequence[int],
        pad_id: int,
        sleep: bool,
    ) -> None:
        self.llm = llm
        self.policy = policy
        self.encoder = encoder
        self.eos_ids = tuple(eos_ids)
        self.banned_ids = tuple(banned_ids)
        self.pad_id = pad_id
        self.sleep = sleep
        self._stale = True
        self._compared = False
        if sleep:
            llm.sleep(level=2)

    def sync(self) -> None:
        """Remember that the student has moved; its weights are handed over before the next answer."""
        self._stale = True

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_new_tokens: int,
        seed: int,
        keys: Sequence[int] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[Rollout]:
        """See `Engine.generate`. Each prompt has a seed of its own, and vLLM adds an answer's number to it; its kernels
        may still round otherwise in another batch. Raises EngineError where vLLM's prompt or answer is not ours."""
        from vllm import SamplingParams  # pyright: ignore[reportAttributeAccessIssue]

        keys = range(len(prompts)) if keys is None else keys
        images = [self.encoder.images(prompt.sample) for prompt in prompts]
        requests = [
            {"prompt_token_ids": unexpanded_ids(self.encoder, prompt.sample)}
            | ({"multi_modal_data": {"image": pictures}} if pictures else {})
            for prompt, pictures in zip(prompts, images, strict=True)
        ]
        settings = sampling_settings(
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            eos_ids=self.eos_ids,
            banned_ids=self.banned_ids,
        )
        params = [SamplingParams(**settings, seed=request_seed(seed, key)) for key in keys]
        self._wake()
        outputs = self.llm.generate(requests, params, use_tqdm=False)
        if self.sleep:
            self.llm.sleep(level=2)
            self._stale = True
        rollouts = []
        for prompt, output in zip(prompts, outputs, strict=True):
            self._require_prompt(prompt, output.prompt_token_ids)
            rollouts += [
                answer(
                    prompt,
                    list(part.token_ids),
                    [entry[token].logprob for entry, token in zip(part.logprobs, part.token_ids, strict=True)],
                    part.finish_reason,
                    eos_ids=self.eos_ids,
                    banned_ids=self.banned_ids,
                )
                for part in sorted(output.outputs, key=lambda part: part.index)
            ]
        if len(rollouts) != n * len(prompts):
            raise EngineError(f"vLLM gave {len(rollouts)} answers to {len(prompts)} prompts: {n} each were asked for")
        if rollouts and not self._compared:
            compare(self.policy, rollouts[:CHECKED_ROLLOUTS], pad_id=self.pad_id)
            self._compared = True
        return rollouts

    def _wake(self) -> None:
        if self.sleep:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.llm.wake_up(tags=["weights"])
        if self._stale:
            weights = checkpoint_weights(self.policy.model)
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            # The worker has dropped its image features with the old weights; the scheduler must know.
            self.llm.llm_engine.reset_encoder_cache()
            self.llm.llm_engine.reset_mm_cache()
            if not self.llm.reset_prefix_cache():
                raise EngineError("vLLM could not drop the cache of the old weights: requests are still running")
            self._stale = False
        if self.sleep:
            self.llm.wake_up(tags=["kv_cache"])

    def _require_prompt(self, prompt: Prompt, found: Sequence[int]) -> None:
        try:
            require_prompt(found, prompt, self.encoder.processor.tokenizer)
        except ValueError as error:
            raise EngineError(str(error)) from None


def start_llm(
    path: str,
    encoder: PromptEncoder,
    *,
    dtype: torch.dtype,
    max_model_len: int,
    gpu_memory: float,
    sleep: bool,
    eager: bool,
) -> Any:
    """A `vllm.LLM` in this process for the model at `path`. Raises EngineError where the package is missing."""
    # In another process vLLM could not be handed an iterator over the student's tensors.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        from vllm import LLM  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise EngineError(missing(str(error))) from error
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return LLM(
        model=path,
        dtype=str(dtype).removeprefix("torch."),
        max_model_len=max_model_len,
        gpu_memory_utilization=gpu_memory,
        enable_sleep_mode=sleep,
        enforce_eager=eager,
        logprobs_mode="raw_logprobs",
        mm_processor_kwargs=pixel_limits(encoder),
        **({"distributed_executor_backend": "external_launcher"} if distributed else {}),
    )


def missing(reason: str) -> str:
    return (
        f"rollout.engine is vllm: that package cannot be used ({reason}): pip install 'reopold-vl[vllm]' beside a GPU"
    )


def pixel_limits(encoder: PromptEncoder) -> dict[str, Any]:
    """vLLM's own resizing with our limits leaves our fitted pictures as they are."""
    if families.FAMILIES[encoder.family].grid:
        return {"min_pixels": encoder.min_pixels, "max_pixels": encoder.max_pixels}
    return families.image_settings(encoder.processor, encoder.family, encoder.max_pixels)
