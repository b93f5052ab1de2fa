"""What a vLLM server is asked as teacher, and how its log-probs are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reopold_vl.teachers import TeacherError
from reopold_vl.vllm_http import GENERATE, VLLMClient, VLLMError

LOWEST = -1000.0
"""vLLM writes -9999 for -inf: every log-prob at or below this comes out as this, far below any floor of a reward."""


def chat_messages(
    messages: Sequence[Mapping[str, Any]], pictures: Sequence[str], prefix: str | None
) -> list[dict[str, Any]]:
    """Our chat messages as OpenAI's: each image its address, in order; `prefix` begins the model's own turn."""
    waiting = iter(pictures)

    def part(item: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": next(waiting)}} if item["type"] == "image" else dict(item)

    conversation = [{**message, "content": [part(item) for item in message["content"]]} for message in messages]
    return conversation if prefix is None else [*conversation, {"role": "assistant", "content": prefix}]


def takes_token_ids(client: VLLMClient, model: str, token: int) -> bool:
    """Whether the scale-out address is there (404: an older server; 403: not switched on)."""
    probe = {"model": model, "token_ids": [token], "sampling_params": {"max_tokens": 1}}
    try:
        client.post(GENERATE, probe)
    except VLLMError as error:
        if error.status in (403, 404, 405):
            return False
        raise
    return True


def answer_logprobs(entries: Any, ids: Sequence[int], length: int, *, where: str) -> list[float]:
    """log-probs of the last `length` of the prompt's tokens from vLLM's `prompt_logprobs`, in nats.

    `entries` has one entry a token: null for the first, else {token id: {"logprob", "rank", "decoded_token"}}. Raises
    TeacherError for a position that is missing, names another token or holds no number.
    """
    if not isinstance(entries, list) or len(entries) != len(ids):
        found = len(entries) if isinstance(entries, list) else "no"
        raise TeacherError(f"{where}: the server returned {found} prompt_logprobs for {len(ids)} tokens")
    values = []
    for position in range(len(ids) - length, len(ids)):
        entry = entries[position]
        scored = entry.get(str(ids[position])) if isinstance(entry, dict) else None
        value = scored.get("logprob") if isinstance(scored, dict) else None
        if not isinstance(value, int | float) or math.isnan(value):
            raise TeacherError(f"{where}: no log-prob for token {ids[position]} at position {position}")
        values.append(max(float(value), LOWEST))
    return values
