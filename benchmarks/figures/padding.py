"""Padding in the gradient pass, on a mix of lengths like that of real answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.figures.result import Figure
from benchmarks.figures.setup import Step, build, naive_gap, random_answers, samples
from benchmarks.gpu_shapes import SIZES
from reopold_vl.objectives import ReverseKL
from reopold_vl.policy import Policy
from reopold_vl.score import score, score_tokens
from reopold_vl.types import Rollout

QUESTIONS, N, UPDATES, ROWS = 16, 8, 2, 64
MEDIAN, SPREAD, LONGEST = 150, 0.7, 768  # of the answers: log-normal, cut off, as reasoning traces are
SIDES = (112, 168, 224, 280)


def measure() -> list[Figure]:
    """Token places that the decoder works on, per token that is there; TRL pads to the longest of all."""
    model = build(0, size=SIZES["tiny"])
    generator = np.random.default_rng(0)
    questions = [samples(1, side=int(generator.choice(SIDES)), seed=index)[0] for index in range(QUESTIONS)]
    prompts = [model.encoder(question) for question in questions]
    lengths = generator.lognormal(np.log(MEDIAN), SPREAD, (QUESTIONS, N)).clip(1, LONGEST).astype(int).tolist()
    rollouts = random_answers(prompts, lengths)
    old = score_tokens(model, rollouts, rows_at_once=ROWS)
    batch = score(rollouts, old, old._replace(logprobs=old.logprobs + 0.1))
    read = list({id(rollout.prompt): len(rollout.prompt.ids) for rollout in rollouts}.values())
    tokens = sum(read) + sum(length - 1 for length in lengths_of(rollouts))  # the last of an answer is no input
    places = 0
    plain = Policy.hidden_states

    def spy(self: Policy, *, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        nonlocal places
        places += ids.numel()
        return plain(self, ids=ids, **inputs)

    Policy.hidden_states = spy
    try:
        Step(model, model, N, LONGEST, UPDATES, ROWS).learn(rollouts, batch, ReverseKL()(batch, step=0))
    finally:
        Policy.hidden_states = plain
    few = [0, 9, 77]
    check = naive_gap(build(0, size=SIZES["tiny"]), [rollouts[row] for row in few], old.logprobs[few])
    return [
        Figure(
            "token places with padding / tokens in the gradient pass, log-normal answers",
            "ratio",
            ours=places / tokens,
            peer=padded_to_the_longest(rollouts),
            peer_name="TRL's rule: to the longest of the generation batch",
            goal=1.1,
            of_ratio=False,
            checks={"log-prob": (check, 1e-5)},
            details={"tokens": tokens, "answers": {"median": MEDIAN, "spread": SPREAD, "longest": LONGEST}},
        )
    ]


def lengths_of(rollouts: Sequence[Rollout]) -> list[int]:
    return [len(rollout.response_ids) for rollout in rollouts]


def padded_to_the_longest(rollouts: Sequence[Rollout]) -> float:
    prompts, answers = [len(rollout.prompt.ids) for rollout in rollouts], lengths_of(rollouts)
    return len(rollouts) * (max(prompts) + max(answers)) / (sum(prompts) + sum(answers))
