"""Tokens sampled per CPU second, against transformers' own `generate`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.figures.profile import parts
from benchmarks.figures.result import Figure, in_turns
from benchmarks.figures.setup import NEVER, build, engine, naive_gap, samples
from reopold_vl.collate import collate_prompts, pad_right
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import Prompt, Rollout

QUESTIONS, N, RESPONSE, SIDE = 2, 8, 64, 672
SEEDS = tuple(range(1, 9))  # the lengths are random: 128 answers a side
ENDS = tuple(range(100, 125))  # so many tokens end an answer that its mean length is about a quarter of the longest


def measure() -> list[Figure]:
    """A prompt of an image that is longer than the answers: answers that end by themselves, and all of one length."""
    model = build(0)
    prompts = [model.encoder(question) for question in samples(QUESTIONS, side=SIDE)]
    name = f"rollout, n = {N}, image prompt longer than the answer"
    return [
        compare(model, prompts, f"{name}, answers that end by themselves", ENDS),
        compare(model, prompts, f"{name}, answers of one length", NEVER),
    ]


def compare(model: VisionLanguageModel, prompts: list[Prompt], name: str, ends: tuple[int, ...]) -> Figure:
    """Tokens up to each answer's end, that included, per CPU second."""
    sampler = replace(engine(model, N * QUESTIONS), eos_ids=ends)

    def ours(seed: int) -> list[Rollout]:
        return sampler.generate(prompts, n=N, max_new_tokens=RESPONSE, seed=seed)

    def theirs(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return generate(model, prompts, ends, do_sample=True, num_return_sequences=N)

    (batches, mine), (made, other) = in_turns(ours, theirs, SEEDS)
    rollouts = [rollout for batch in batches for rollout in batch]
    own = sum(len(rollout.response_ids) for rollout in rollouts)
    peer = sum(_length(row[len(prompts[0].ids) :], ends) for batch in made for row in batch)
    logprobs = pad_right([rollout.logprobs for rollout in rollouts[:2]], 0.0)
    greedy = sampler.generate(prompts, n=1, max_new_tokens=RESPONSE, seed=0, temperature=0.0)
    wrong = 0
    for row, rollout in zip(generate(model, prompts, ends, do_sample=False), greedy, strict=True):
        answer = row[len(rollout.prompt.ids) :][: len(rollout.response_ids)]
        wrong += int((answer != rollout.response_ids).sum())
    return Figure(
        name,
        "tokens per CPU s",
        ours=own / mine,
        peer=peer / other,
        peer_name=f"transformers generate(num_return_sequences={N})",
        goal=3.0,
        at_least=True,
        checks={
            "log-prob": (naive_gap(model, rollouts[:2], logprobs), 1e-5),
            "greedy tokens that differ": (wrong, 0),
        },
        details={
            "prompt tokens": len(prompts[0].ids),
            "longest answer": RESPONSE,
            "mean answer": own / len(rollouts),
            "the peer's mean answer": peer / len(rollouts),
            "parts": parts(lambda: ours(SEEDS[0])) if ends == NEVER else {},
            "seconds of the peer": other / len(SEEDS),
        },
    )


def _length(answer: torch.Tensor, ends: tuple[int, ...]) -> int:
    """Tokens of an answer up to its end, that included."""
    stops = torch.isin(answer, torch.tensor(ends)).nonzero()
    return len(answer) if len(stops) == 0 else int(stops[0]) + 1


@torch.no_grad()
def generate(
    model: VisionLanguageModel,
    prompts: list[Prompt],
    ends: tuple[int, ...],
    *,
    longest: int = RESPONSE,
    **settings: Any,
) -> torch.Tensor:
    """Plain transformers, with the same tokens banned and the same ends; greedy or over the full vocabulary."""
    batch = collate_prompts(prompts, pad_id=model.pad_id)
    return model.policy.model.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask.long(),
        mm_token_type_ids=batch.token_types,
        **batch.vision,
        max_new_tokens=longest,
        eos_token_id=list(ends),
        suppress_tokens=sorted({*model.banned_ids, *model.eos_ids}),
        **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if settings["do_sample"] else {}),
        **settings,
    )
