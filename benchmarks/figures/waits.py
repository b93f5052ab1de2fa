"""How often the CPU waits for the device, on a pretend GPU (`benchmarks.pretend_gpu`), beside plain transformers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import pretend_gpu
from benchmarks.figures.process import printed
from benchmarks.figures.result import Figure
from benchmarks.figures.setup import NEVER
from reopold_vl.collate import collate_prompts, collate_rollouts, moved
from reopold_vl.learn import learn, piece_loss
from reopold_vl.logprobs import TokenStats
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.optim import build_optimizer
from reopold_vl.score import sampled_tokens, score, score_tokens
from reopold_vl.sharding import alone
from reopold_vl.types import Prompt, Rollout, TokenSignal, VisualSample

ANSWERS, PIECES = 4, 3
LENGTHS = (16, 32)  # tokens of the answers; the difference is what decoding steps cost


@dataclass(frozen=True)
class Counts:
    """Waits in a decoding step, in scoring, in a gradient pass, and in an update of PIECES passes."""

    step: float
    scoring: int
    gradient: int
    update: int
    where: dict[str, int]
    """All of them but the steps'."""
    error: float
    """The largest difference of log-probs from the CPU's, in nats."""
    other_answers: int
    """Answers that are not the CPU's, of those that end at different times."""


def measure() -> list[Figure]:
    """In a process of its own."""
    found = printed("benchmarks.figures.waits")
    ours, theirs = Counts(**found["ours"]), found["transformers"]
    # Ended answers are asked for at every eighth step; scores are fetched once; an update has a norm and a loss.
    parts = (
        ("a decoding step", ours.step, "transformers generate", theirs["step"], 1 / 8),
        ("scoring of answers to pictures", ours.scoring, "transformers forward", theirs["scoring"], 1),
        ("gradient pass of answers to pictures", ours.gradient, "transformers, backward too", theirs["gradient"], 0),
        (f"an update of {PIECES} such passes", ours.update, "transformers, backward too", theirs["update"], 2),
    )
    return [
        Figure(
            f"waits for the device, {name}",
            "times",
            ours=own,
            peer=peer,
            peer_name=peer_name,
            goal=goal,
            of_ratio=False,
            checks={"log-prob": (ours.error, 1e-5), "answers that differ": (ours.other_answers, 0)},
        )
        for name, own, peer_name, peer, goal in parts
    ]


def samples() -> list[VisualSample]:
    """Pictures and questions of different sizes."""
    noise = np.random.default_rng(0)
    return [
        VisualSample(
            str(k),
            "How many red circles are there" + " now" * k + "?",
            images=(Image.fromarray(noise.integers(0, 255, (84 + 28 * k, 84, 3), dtype=np.uint8)),),
        )
        for k in range(PIECES)
    ]


def noted(work: Callable[[], Any]) -> tuple[Any, list[pretend_gpu.Wait]]:
    """What `work` returns, and its waits."""
    with pretend_gpu.waits() as found:
        return work(), list(found)


def per_step(work: Callable[[int], Any]) -> float:
    """Waits for each token more; `work` takes the length of the answers."""
    short, long = (len(noted(lambda length=length: work(length))[1]) for length in LENGTHS)
    return (long - short) / (LENGTHS[1] - LENGTHS[0])


def sampled(model: VisionLanguageModel, prompts: Sequence[Prompt], length: int, ends: tuple[int, ...]) -> list[Rollout]:
    """Answers of at most `length` tokens."""
    engine = replace(model.engine(rows_at_once=64), eos_ids=ends)
    return engine.generate(prompts, n=ANSWERS, max_new_tokens=length, seed=0)


def count(model: VisionLanguageModel) -> tuple[Counts, list[Rollout]]:
    """Ours, and the answers that were scored. `model` stays on the pretend GPU."""
    prompts = [model.encoder(sample) for sample in samples()]
    words = replace(prompts[0], vision={}, ids=prompts[0].ids[-5:], token_types=torch.zeros(5, dtype=torch.long))
    rollouts = sampled(model, prompts, LENGTHS[0], NEVER)
    drawn = Counter(torch.cat([rollout.response_ids for rollout in rollouts]).tolist())
    ends = tuple(token for token, _ in drawn.most_common(3))
    ended = sampled(model, [*prompts, words], LENGTHS[1], ends)
    with sdpa_kernel(SDPBackend.MATH):  # the pretend GPU has no other
        expected = score_tokens(model, [*rollouts, *ended], rows_at_once=64)
    pretend_gpu.install()
    pretend_gpu.move(model.policy.model)
    again, _ = noted(lambda: sampled(model, [*prompts, words], LENGTHS[1], ends))
    other = sum(not torch.equal(one.response_ids, two.response_ids) for one, two in zip(ended, again, strict=True))
    everything, _ = noted(lambda: score_tokens(model, [*rollouts, *ended], rows_at_once=64))
    step = per_step(lambda length: sampled(model, prompts, length, NEVER))
    _, scoring = noted(lambda: score_tokens(model, rollouts, rows_at_once=ANSWERS))
    old = TokenStats(*(stats[: len(rollouts), : LENGTHS[0]] for stats in expected))
    batch = score(rollouts, sampled_tokens(rollouts), old)
    signal = TokenSignal(advantages=batch.rewards, mask=batch.mask & (torch.arange(LENGTHS[0]) % 3 == 0))
    learner, rows = alone(model.policy), torch.arange(len(rollouts))
    given = (rollouts, batch, signal)
    _, slope = noted(lambda: piece_loss(learner, None, *given, rows, kept=1, pad_id=model.pad_id).loss.backward())
    optimizer = build_optimizer(model.policy, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    settings = {"updates": 1, "rows_at_once": ANSWERS, "max_grad_norm": 1.0, "pad_id": model.pad_id}
    _, update = noted(lambda: learn(learner, *given, optimizer=optimizer, scheduler=scheduler, **settings))
    where = Counter(f"{wait.what} in {wait.where}" for wait in [*scoring, *slope, *update])
    gap, _ = noted(lambda: model.policy.head_gap(words))  # a batch without a picture
    error = max(gap, float((everything.logprobs - expected.logprobs).abs().max()))
    return Counts(step, len(scoring), len(slope), len(update), dict(where), error, other), rollouts


def count_plain(model: VisionLanguageModel, rollouts: list[Rollout]) -> dict[str, float]:
    """transformers' own, for as many answers; `model` is on the pretend GPU."""
    prompts = list({id(rollout.prompt): rollout.prompt for rollout in rollouts}.values())
    pieces = [rollouts[start : start + ANSWERS] for start in range(0, len(rollouts), ANSWERS)]
    return {
        "step": per_step(lambda length: generated(model, prompts, length)),
        "scoring": len(noted(lambda: forward(model, rollouts))[1]),
        "gradient": len(noted(lambda: forward(model, rollouts).sum().backward())[1]),
        "update": len(noted(lambda: [forward(model, piece).sum().backward() for piece in pieces])[1]),
    }


def generated(model: VisionLanguageModel, prompts: list[Prompt], length: int) -> Tensor:
    """Answers of exactly `length` tokens from `generate`."""
    device = model.policy.device
    batch = collate_prompts(prompts, pad_id=model.pad_id).to(device)
    return model.policy.model.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask.long(),
        mm_token_type_ids=batch.token_types,
        **{name: moved(tensor, device) for name, tensor in batch.vision.items()},
        do_sample=True,
        num_return_sequences=ANSWERS,
        min_new_tokens=length,
        max_new_tokens=length,
    )


def forward(model: VisionLanguageModel, rollouts: list[Rollout]) -> Tensor:
    """Log-probs of the answers from a forward pass of prompts and answers, as trainers do it; [B, T, 1]."""
    device = model.policy.device
    batch = collate_rollouts(rollouts, pad_id=model.pad_id).to(device)
    repeated = collate_prompts([rollout.prompt for rollout in rollouts], pad_id=model.pad_id).to(device)
    logits = model.policy.model(
        input_ids=torch.cat([repeated.ids, batch.response_ids], 1),
        attention_mask=torch.cat([repeated.mask, batch.mask], 1).long(),
        mm_token_type_ids=torch.cat([repeated.token_types, torch.zeros_like(batch.response_ids)], 1),
        **{name: moved(tensor, device) for name, tensor in repeated.vision.items()},
    ).logits
    logprobs = logits[:, -batch.response_ids.shape[1] - 1 : -1].log_softmax(-1)
    return logprobs.gather(-1, batch.response_ids[..., None])


if __name__ == "__main__":
    student = load_model("zoo:student", device="cpu", min_pixels=4 * 28**2, max_pixels=64 * 28**2)
    own, answers = count(student)
    print(json.dumps({"ours": vars(own), "transformers": count_plain(student, answers)}))
