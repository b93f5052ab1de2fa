"""A vLLM server, on GPUs of its own, as the student's engine: answers over HTTP, weights through a shared directory.

Written against the source of vLLM 0.33.0 (`entrypoints/scale_out/token_in_token_out`, `entrypoints/serve/dev`,
`model_executor/model_loader/reload`); docs/vllm.md says what has been run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

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
from reopold_vl.rollout.vllm_weights import checkpoint_weights, write_weights
from reopold_vl.types import Prompt, Rollout
from reopold_vl.vllm_http import (
    GENERATE,
    VLLMClient,
    VLLMError,
    content_parts,
    image_address,
    prompt_of,
    require_prompt,
    served_card,
    unexpanded_ids,
)


class VLLMServerEngine:
    """Samples from `vllm serve --enable-scale-out` with VLLM_SERVER_DEV_MODE=1 (the address that reloads weights).

    Before an answer after an update, the student's weights are written to `directory`, which the server must see under
    the same path, and the server loads them from there. `exact` is false and entropies are NaN, as in `VLLMEngine`.
    """

    exact = False

    def __init__(
        self,
        client: VLLMClient,
        policy: Policy,
        encoder: PromptEncoder,
        *,
        directory: Path,
        eos_ids: Sequence[int],
        banned_ids: Sequence[int],
        pad_id: int,
    ) -> None:
        """Raises EngineError for a server that cannot be reached."""
        self.client = client
        self.policy = policy
        self.encoder = encoder
        self.directory = directory.resolve()
        self.eos_ids = tuple(eos_ids)
        self.banned_ids = tuple(banned_ids)
        self.pad_id = pad_id
        self._stale = True
        self._compared = False
        try:
            self.model = str(served_card(client)["id"])
        except VLLMError as error:
            raise EngineError(str(error)) from error

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
        """See `Engine.generate`. Raises EngineError where the server fails or its prompt or answer is not ours."""
        keys = range(len(prompts)) if keys is None else keys
        settings = sampling_settings(
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            eos_ids=self.eos_ids,
            banned_ids=self.banned_ids,
        )
        asked = [
            (prompt, settings | {"seed": request_seed(seed, key)}) for prompt, key in zip(prompts, keys, strict=True)
        ]
        try:
            if self._stale:
                self._hand_over()
                self._stale = False
            groups = self.client.map(lambda item: self._ask(*item), asked)
        except VLLMError as error:
            raise EngineError(str(error)) from error
        rollouts = [rollout for group in groups for rollout in group]
        if rollouts and not self._compared:
            compare(self.policy, rollouts[:CHECKED_ROLLOUTS], pad_id=self.pad_id)
            self._compared = True
        return rollouts

    def _hand_over(self) -> None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if together and torch.distributed.get_rank() > 0:
            for _ in checkpoint_weights(self.policy.model):  # sharded weights are gathered by all ranks
                pass
            torch.distributed.barrier()
            return
        write_weights(self.policy.model, self.directory, dtype=self.policy.precision)
        self._reload()
        if together:
            torch.distributed.barrier()

    def _reload(self) -> None:
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self.directory)}}
        try:
            self.client.post("/collective_rpc", reload)
        except VLLMError as error:
            advice = "; start the server with VLLM_SERVER_DEV_MODE=1" if error.status == 404 else ""
            raise EngineError(f"the weights in {self.directory} cannot be handed over: {error}{advice}") from error
        self.client.post("/reset_encoder_cache", {})
        self.client.post("/reset_mm_cache", {})
        if not self.client.post("/reset_prefix_cache", {}).get("success"):
            raise EngineError("the server could not drop the cache of the old weights: is it serving others?")

    def _ask(self, prompt: Prompt, settings: Mapping[str, Any]) -> list[Rollout]:
        pictures = [image_address(image) for image in self.encoder.images(prompt.sample)]
        body = {
            "model": self.model,
            "token_ids": unexpanded_ids(self.encoder, prompt.sample),
            "sampling_params": {name: value for name, value in settings.items() if value is not None},
            "return_token_ids": True,
        }
        reply = self.client.post(GENERATE, body | ({"content_parts": content_parts(pictures)} if pictures else {}))
        try:
            require_prompt(prompt_of(reply), prompt, self.encoder.processor.tokenizer)
            choices = sorted(reply["choices"], key=lambda choice: choice["index"])
            found = [
                (choice["token_ids"], [float(entry["logprob"]) for entry in choice["logprobs"]["content"]])
                for choice in choices
            ]
        except (KeyError, TypeError) as error:
            raise EngineError(f"{self.client.base}{GENERATE}: the answer has no usable {error}") from error
        except ValueError as error:
            raise EngineError(str(error)) from error
        if len(found) != settings["n"] or any(len(ids) != len(logprobs) for ids, logprobs in found):
            raise EngineError(f"{self.client.base}{GENERATE}: answers or log-probs are missing")
        return [
            answer(prompt, ids, logprobs, choice["finish_reason"], eos_ids=self.eos_ids, banned_ids=self.banned_ids)
            for (ids, logprobs), choice in zip(found, choices, strict=True)
        ]
