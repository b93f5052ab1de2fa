"""What each saving is worth: the same work as it is and with that one saving taken away, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import DynamicCache

from benchmarks.figures.result import Figure, in_turns
from benchmarks.figures.rollout import ENDS
from benchmarks.figures.setup import NEVER, SIZE, Step, build, engine, random_answers, samples
from reopold_vl import collate, learn
from reopold_vl.decoding import sampling_cache
from reopold_vl.logprobs import TokenStats
from reopold_vl.objectives import Reopold, ReverseKL
from reopold_vl.policy import Policy
from reopold_vl.rollout import hf
from reopold_vl.score import score, score_tokens
from reopold_vl.sharding import Learner, shard
from reopold_vl.types import Rollout
from reopold_vl.visual_tokens import PatchProduct

QUESTIONS, N, RESPONSE, SIDE = 2, 8, 48, 448
WIDE = 8192  # with the head a third of the decoder, as in 0.5B models; with 2,048 it is a tenth, as in 3B ones
REPEATS = 4
LENGTHS = ((9, 15, 22, 31, 40, 60, 90, 190), (7, 18, 20, 35, 44, 70, 85, 160))  # as skewed as real ones


@contextmanager
def changed(place: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute has another value meanwhile."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def measure() -> list[Figure]:
    student, teacher = build(0, frozen=True, cache_mb=64), build(1)
    questions = samples(QUESTIONS, side=SIDE)
    prompts = [student.encoder(question) for question in questions]
    step = Step(student, teacher, N, RESPONSE, updates=2)
    rollouts = step.run(questions, seed=0)
    wide = Step(
        build(0, frozen=True, cache_mb=64, size=replace(SIZE, vocabulary=WIDE)), teacher, N, RESPONSE, updates=2
    )
    uneven = random_answers(prompts, LENGTHS)
    batch = collate.collate_prompts(prompts, pad_id=teacher.pad_id)
    found = [
        _compare(
            "a vision pass: patches embedded by one product",
            lambda: teacher.policy.encode_images(batch),
            lambda: changed(PatchProduct, "forward", nn.Conv3d.forward),
        ),
        _compare(
            "scoring: a prompt read once for its answers",
            lambda: _score(step, rollouts),
            lambda: changed(Policy, "shares_prompts", lambda self, batch: False),
        ),
        _compare(
            "gradient pass: a prompt read once for its answers",
            lambda: _learn(step, rollouts),
            lambda: changed(Policy, "shares_prompts", lambda self, batch: False),
        ),
        _cut_up(rollouts),
        _compare(
            "gradient pass: answers in groups of their length",
            lambda: _learn(step, uneven),
            lambda: changed(collate, "PASS_TOKENS", 10**9),
        ),
        _compare(
            "gradient pass: features of a frozen tower kept",
            lambda: _learn(step, rollouts),
            lambda: changed(student.policy, "feature_cache", None),
        ),
        _beside(
            "gradient pass: the head on a fifth of the tokens, with a tenth of the decoder's weights (3B models)",
            lambda: _learn(step, rollouts, Reopold(0.2, 0.2, switch_step=0)),
            lambda: _learn(step, rollouts),
        ),
        _beside(
            "gradient pass: the head on a fifth of the tokens, with a third of the weights (0.5B models)",
            lambda: _learn(wide, rollouts, Reopold(0.2, 0.2, switch_step=0)),
            lambda: _learn(wide, rollouts),
        ),
        _compare(
            "gradient pass: answers read up to their last kept token, behind which lies a fifth of their tokens",
            lambda: _learn(step, rollouts, Reopold(0.2, 0.2, switch_step=0), sure=RESPONSE // 5),
            lambda: changed(learn, "up_to_last_kept", lambda rollout, keep: rollout),
        ),
        _compare(
            "rollout: a prompt's keys read once a step for its answers",
            lambda: _sample(step, prompts, ends=NEVER),
            lambda: changed(hf, "sampling_cache", _apart),
        ),
        _compare(
            "rollout: that, and caches that grow in place",
            lambda: _sample(step, prompts, ends=NEVER),
            lambda: changed(hf, "sampling_cache", _plain_cache),
        ),
        _compare(
            "rollout: small weights laid out for a few rows",
            lambda: _sample(step, prompts, ends=NEVER),
            lambda: changed(hf, "columns_side_by_side", lambda policy: nullcontext()),
        ),
        _compare(
            "rollout: answers that have ended are dropped",
            lambda: _sample(step, prompts, ends=ENDS),
            lambda: changed(hf, "STEPS_BETWEEN_CHECKS", {"cpu": 10**9}),
        ),
    ]
    one_by_one = [prompt for prompt in prompts for _ in range(N)]
    found += [
        _beside(
            "rollout: a prompt prefilled once for its answers, and its keys shared",
            lambda: _sample(step, prompts, ends=NEVER),
            lambda: engine(student, 64).generate(one_by_one, n=1, max_new_tokens=RESPONSE, seed=0),
        ),
        _beside(
            "a step: the student's log-probs from the sampler, no second pass",
            lambda: step.run(questions, seed=1),
            lambda: score_tokens(student, step.run(questions, seed=1), rows_at_once=64),
        ),
    ]
    return found


def _cut_up(rollouts: list[Rollout]) -> Figure:
    """One process that holds all parts: the passes are those of many, without a network between them."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    student = build(0, frozen=True)
    filler = shard(student, device=torch.device("cpu"), compute=torch.float32, fetch_tokens=0)
    step = Step(student, student, N, RESPONSE, updates=2)
    learner = Learner(student.policy, student.policy, filler)
    found = _compare(
        "gradient pass of a model that is cut up (FSDP2): a prompt read once for its answers",
        lambda: _learn(step, rollouts, learner=learner),
        lambda: changed(student.policy, "fetch_tokens", 10**9),
    )
    dist.destroy_process_group()
    return found


def _score(step: Step, rollouts: list[Rollout]) -> None:
    score_tokens(step.teacher, rollouts, rows_at_once=64)


def _learn(
    step: Step, rollouts: list[Rollout], objective: Any = None, *, learner: Learner | None = None, sure: int = 0
) -> None:
    """`sure` tokens at the end of each answer have no entropy, the one before them the highest: the last one kept."""
    shape = (len(rollouts), max(len(rollout.response_ids) for rollout in rollouts))
    logprobs, entropy = -torch.ones(shape), torch.rand(shape, generator=torch.Generator().manual_seed(0))
    last = shape[1] - sure - 1
    entropy[:, last], entropy[:, last + 1 :] = 2.0, 0.0
    batch = score(rollouts, TokenStats(logprobs, entropy), TokenStats(logprobs + 0.1, entropy))
    step.learn(rollouts, batch, (objective or ReverseKL())(batch, step=0), learner)


def _sample(step: Step, prompts: list[Any], *, ends: tuple[int, ...]) -> None:
    replace(engine(step.student, 64), eos_ids=ends).generate(prompts, n=N, max_new_tokens=RESPONSE, seed=0)


def _apart(prompts: Any, rows: torch.Tensor, *, attention: str, device: torch.device) -> Any:
    """Ours, with a copy of the prompt for each answer."""
    return sampling_cache(prompts, rows, attention="", device=device)


def _plain_cache(prompts: Any, rows: torch.Tensor, *, attention: str, device: torch.device) -> DynamicCache:
    """transformers' own: a copy of the prompt for each answer, and of everything for each token."""
    made = DynamicCache()
    for number, layer in enumerate(prompts.layers):
        made.update(layer.keys[rows], layer.values[rows], number)
    return made


def _compare(name: str, call: Callable[[], Any], without: Callable[[], AbstractContextManager[None]]) -> Figure:
    def other() -> None:
        with without():
            call()

    return _beside(name, call, other)


def _beside(name: str, call: Callable[[], Any], other: Callable[[], Any]) -> Figure:
    """The means of some runs in turns."""
    (_, ours), (_, theirs) = in_turns(lambda _: call(), lambda _: other(), range(REPEATS))
    return Figure(name, "CPU s", ours=ours / REPEATS, peer=theirs / REPEATS, peer_name="without", goal=1.0)
