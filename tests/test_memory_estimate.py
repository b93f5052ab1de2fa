"""The memory estimate against what torch's profiler sees allocated on the CPU, phase by phase, within its factor."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import picture, tiny_vlm
from torch.profiler import ProfilerActivity, profile

from reopold_vl.check.lower import what_to_lower
from reopold_vl.check.memory import estimate, kv_cache_bytes
from reopold_vl.check.plan import ModelSize, Plan
from reopold_vl.check.sizes import size_of, skeleton, trained
from reopold_vl.collate import collate_rollouts
from reopold_vl.lora import add_adapter
from reopold_vl.optim import build_optimizer
from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptEncoder
from reopold_vl.recompute import recompute_layers
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.rollout.layout import columns_side_by_side
from reopold_vl.types import Prompt, Rollout, VisualSample
from reopold_vl.vision import freeze_vision

FACTOR = 1.5
N, PROMPTS, TIME = 2, 3, 32
# Two shapes: mostly vocabulary, and mostly layers.
SHAPES = {"wide head": (96, 2, 20000), "deep": (192, 6, 2000)}


def peak(work: Callable[[], object]) -> int:
    """The largest sum of CPU allocations alive at once while `work` ran, above what was there before."""
    gc.collect()  # what dies while the profiler looks would count as freed
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())  # pyright: ignore[reportOptionalMemberAccess]
    changes: list[tuple[int, int]] = []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.name == "[memory]":
            fields: Any = event.extra_fields
            changes.append((event.start_time_ns, fields.alloc_size))
    alive = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        alive += size
        most = max(most, alive)
    assert len(changes) > 50  # the profiler did look
    return most


class Case:
    """A model of one shape with rollouts of random tokens, and the plan that describes them."""

    def __init__(self, shape: str) -> None:
        hidden, layers, vocabulary = SHAPES[shape]
        self.model, processor = tiny_vlm("qwen2_5_vl", seed=0, hidden=hidden, layers=layers, padded_vocab=vocabulary)
        self.policy = Policy(self.model)
        encoder = PromptEncoder(
            processor=processor,
            family="qwen2_5_vl",
            image_token_id=self.model.config.image_token_id,
            min_pixels=1024,
            max_pixels=1 << 20,
        )
        question = "How many red squares are in the picture? " * 10
        # Of two lengths: without padding attention needs no mask, and takes less than it does in a real batch.
        samples = [VisualSample(str(i), question, "1", (picture(224, 196 - 28 * (i > 1), i),)) for i in range(PROMPTS)]
        self.prompts: list[Prompt] = [encoder(sample) for sample in samples]
        nothing = torch.zeros(TIME)
        self.rollouts = [
            Rollout(prompt, torch.randint(0, 250, (TIME,)), nothing, nothing, "length")
            for prompt in self.prompts
            for _ in range(N)
        ]
        self.plan = Plan(
            student=size_of(self.model),
            trainable=sum(parameter.numel() for parameter in self.model.parameters()),
            rollout_rows=N * PROMPTS,
            learn_rows=N * PROMPTS,
            n=N,
            prompt_tokens=len(self.prompts[0].ids),
            image_tokens=int((self.prompts[0].token_types == 1).sum()),
            response_tokens=TIME,
        )

    def gradient_pass(self) -> None:
        batch = collate_rollouts(self.rollouts, pad_id=0)
        self.policy(batch, batch.mask).logprobs.sum().backward()

    def scoring(self) -> None:
        with torch.no_grad():
            batch = collate_rollouts(self.rollouts, pad_id=0)
            self.policy(batch, batch.mask)

    def rollout(self) -> None:
        engine = HFEngine(policy=self.policy, eos_ids=(10**6,), pad_id=0, rows_at_once=N * PROMPTS)
        engine.generate(self.prompts, n=N, max_new_tokens=TIME, seed=0)


@pytest.fixture(params=SHAPES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(request.param)


def assert_near(estimated: int, measured: int) -> None:
    assert measured / FACTOR < estimated < measured * FACTOR, f"{estimated:,} bytes estimated, {measured:,} measured"


def test_the_phases_of_a_step(case: Case) -> None:
    plan = replace(case.plan, teacher=case.plan.student)
    assert_near(estimate(plan).phases["gradient pass"], peak(case.gradient_pass))
    optimizer = build_optimizer(case.policy, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    states = estimate(plan).held["optimizer"]
    assert_near(states + estimate(plan).phases["update"] - estimate(plan).phases["gradients"], peak(optimizer.step))
    assert states == sum(
        state.numel() * 4 for each in optimizer.state.values() for state in each.values() if state.ndim
    )
    case.policy.zero_grad(set_to_none=True)
    assert_near(estimate(plan).phases["teacher scoring"], peak(case.scoring))
    with columns_side_by_side(case.policy):  # moved while the profiler looks, the places they leave would not count
        assert_near(estimate(plan).phases["rollout"], peak(case.rollout))


def test_gradient_checkpointing(case: Case) -> None:
    plain = peak(case.gradient_pass)
    case.policy.zero_grad(set_to_none=True)
    recompute_layers(case.model)
    measured = peak(case.gradient_pass)
    assert_near(estimate(replace(case.plan, checkpointing=True)).phases["gradient pass"], measured)
    assert measured < plain


def test_frozen_vision(case: Case) -> None:
    freeze_vision(case.model, tower=True, projector=True)
    trainable = sum(parameter.numel() for parameter in case.model.parameters() if parameter.requires_grad)
    plan = replace(case.plan, trainable=trainable, frozen_vision=True)
    assert_near(estimate(plan).phases["gradient pass"], peak(case.gradient_pass))


def test_adapters(case: Case) -> None:
    pytest.importorskip("peft")
    expected = trained(case.model, rank=4)
    add_adapter(case.model, base="x", rank=4, alpha=8.0, dropout=0.0, targets=(), seed=0)
    trainable = sum(parameter.numel() for parameter in case.model.parameters() if parameter.requires_grad)
    assert expected.trainable == expected.adapters == trainable
    plan = replace(case.plan, trainable=trainable, adapters=trainable, frozen_vision=True)
    assert_near(estimate(plan).phases["gradient pass"], peak(case.gradient_pass))
    assert estimate(plan).held["optimizer"] == 8 * trainable


def test_bf16_weights(case: Case) -> None:
    case.model.to(torch.bfloat16)
    measured = peak(case.gradient_pass)
    assert_near(estimate(replace(case.plan, weight_bytes=2, compute_bytes=2)).phases["gradient pass"], measured)


def test_bf16_products(case: Case) -> None:
    case.policy.compute = torch.bfloat16
    assert_near(estimate(replace(case.plan, compute_bytes=2)).phases["gradient pass"], peak(case.gradient_pass))


def test_weights_and_states_are_counted_exactly() -> None:
    size = size_of(skeleton("zoo:student"))
    plan = Plan(size, size.parameters, 8, 8, 4, 30, 9, 56)
    held = estimate(plan).held
    assert held == {"student weights": 4 * size.parameters, "optimizer": 8 * size.parameters}
    mastered = estimate(replace(plan, weight_bytes=2, compute_bytes=2, master=True, ema=True))
    assert mastered.held == {
        "student weights": 2 * size.parameters,
        "optimizer": 8 * size.parameters,
        "fp32 master weights": 4 * size.parameters,
        "EMA": 4 * size.parameters,
    }
    assert mastered.phases["gradients"] == 2 * size.parameters
    shared = estimate(replace(plan, shards=4))
    assert shared.held["optimizer"] == 2 * size.parameters and shared.phases["gradients"] == size.parameters
    elsewhere = estimate(replace(plan, engine_bytes=7, teacher=size, teacher_shards=2))
    assert elsewhere.phases["rollout"] == 7 and elsewhere.held["teacher weights"] == 2 * size.parameters
    assert estimate(replace(plan, engine_bytes=7, engine_stays=True)).held["rollout engine"] == 7
    assert kv_cache_bytes(size, rows=2, tokens=10, element_bytes=4) == 2 * 96 * 2 * 10 * 4 * (3 + 1)


def test_prompts_of_a_parted_model_are_read_once_where_that_is_worth_a_pass() -> None:
    size = size_of(skeleton("zoo:student"))
    plan = Plan(size, size.parameters, 8, 8, 4, 2000, 9, 56, teacher=size)  # two prompts: 6 x 2000 tokens are saved
    whole, cut = (estimate(replace(plan, shards=n, teacher_shards=n, fetch_tokens=12000)).phases for n in (1, 2))
    shared = estimate(replace(plan, shards=2, teacher_shards=2, fetch_tokens=11999)).phases
    assert shared["teacher scoring"] == whole["teacher scoring"] < cut["teacher scoring"]
    assert shared["gradient pass"] < cut["gradient pass"]


LARGE = ModelSize(8 * 10**9, 7 * 10**8, 5 * 10**8, 28, 3584, 18944, 3584, 512, 28, 152064, 2 * 10**6, 32, 1280, 3456)


def test_what_to_lower_comes_in_order_and_ends_where_it_fits() -> None:
    plan = Plan(LARGE, LARGE.parameters, 96, 64, 8, 1500, 1200, 2048, compute_bytes=2, teacher=LARGE, teacher_bytes=2)
    before = estimate(plan).peak
    wanted = {180: ["rows", "checkpointing"], 100: ["rows", "lora"], 40: ["rows", "checkpointing", "lora", "path"]}
    for gigabytes, names in wanted.items():
        steps = what_to_lower(plan, gigabytes << 30)
        assert len(steps) == len(names) and all(name in step.flags for name, step in zip(names, steps, strict=True))
        peaks = [before, *(step.peak for step in steps)]
        assert peaks == sorted(peaks, reverse=True) and peaks[-1] <= gigabytes << 30 < peaks[-2]
    sampled = replace(plan, learn_rows=1, rollout_rows=2048, checkpointing=True)
    assert what_to_lower(sampled, estimate(sampled).peak - 1)[0].flags.startswith("--rollout.rows-at-once 1024")
    assert what_to_lower(plan, before) == []
    assert "serve_teacher" in what_to_lower(plan, 1 << 30)[-1].flags
