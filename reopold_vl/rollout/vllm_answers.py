"""What both vLLM engines ask for and how they read what comes back: nothing is taken on trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from reopold_vl.collate import collate_rollouts
from reopold_vl.policy import Policy
from reopold_vl.seeds import derive_seed
from reopold_vl.types import Prompt, Rollout

BIAS = -100.0  # vLLM's lowest logit bias
MOST_BANNED = 1024  # vLLM's limit on biased tokens (v1/worker/gpu/sample/logit_bias.py)
CHECKED_ROLLOUTS = 2
# Mean |engine - trainer| in nats above which the two are not the same model; kernels alone differ by a tenth of this.
LARGEST_GAP = {torch.float32: 0.01, torch.bfloat16: 0.25, torch.float16: 0.1}


class EngineError(ValueError):
    """An engine that is not there or that does not do as it is told; the message says which and why."""


def request_seed(seed: int, key: int) -> int:
    """Of one prompt; vLLM adds the answer's number, so neighbouring seeds must not be neighbouring prompts."""
    return derive_seed(seed, key, "vllm") >> 16


def sampling_settings(
    *,
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    eos_ids: Sequence[int],
    banned_ids: Sequence[int],
) -> dict[str, Any]:
    """vLLM's SamplingParams: nothing of the model's own generation settings, our end tokens and no others."""
    if len(banned_ids) > MOST_BANNED:
        raise EngineError(
            f"{len(banned_ids)} tokens must not be sampled: vLLM's logit bias takes {MOST_BANNED} at most"
        )
    return {
        "n": n,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_new_tokens,
        "logprobs": 0,  # the sampled token's alone
        "logit_bias": {token: BIAS for token in banned_ids} or None,
        "stop_token_ids": list(eos_ids),
        "ignore_eos": True,
        "detokenize": False,
    }


def answer(
    prompt: Prompt,
    token_ids: list[int],
    logprobs: list[float],
    finish_reason: str | None,
    *,
    eos_ids: Sequence[int],
    banned_ids: Sequence[int],
) -> Rollout:
    """One answer as a rollout. Raises EngineError for one that the trainer could not score as it is."""
    where = f"sample {prompt.sample.id}: vLLM's answer"
    if not token_ids or finish_reason not in ("stop", "length"):
        raise EngineError(f"{where} has {len(token_ids)} tokens and ended with {finish_reason!r}")
    banned = next((token for token in token_ids if token in set(banned_ids)), None)
    if banned is not None:
        raise EngineError(f"{where} holds token {banned}, which it was told never to sample")
    ended = token_ids[-1] in eos_ids
    if ended != (finish_reason == "stop") or any(token in eos_ids for token in token_ids[:-1]):
        raise EngineError(
            f"{where} ended with {finish_reason!r} at token {token_ids[-1]}; end tokens are {list(eos_ids)}"
        )
    reason: Literal["stop", "length"] = "stop" if ended else "length"
    scores = torch.tensor(logprobs, dtype=torch.float32)
    return Rollout(prompt, torch.tensor(token_ids), scores, torch.full_like(scores, torch.nan), reason)


@torch.no_grad()
def compare(policy: Policy, rollouts: Sequence[Rollout], *, pad_id: int) -> None:
    """Raises EngineError where engine and trainer are plainly not the same model, or do not see the same image."""
    batch = collate_rollouts(rollouts, pad_id=pad_id).to(policy.device)
    scored = policy(batch, batch.host.mask).logprobs.cpu()
    rows = zip(rollouts, scored, strict=True)
    gaps = torch.cat([(row[: len(rollout.logprobs)] - rollout.logprobs).abs() for rollout, row in rows])
    allowed = LARGEST_GAP[policy.precision]
    if not float(gaps.mean()) <= allowed:
        raise EngineError(
            f"vLLM's log-probs differ from the trainer's by {float(gaps.mean()):.3g} nats a token (allowed {allowed}): "
            "other weights, other pictures or another precision"
        )
