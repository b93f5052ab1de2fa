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

from benchmarks import pretend_gpu
from benchmarks.figures.process import printed
from benchmarks.figures.result import Figure
from reopold_vl import learn
from reopold_vl.collate import collate_prompts, collate_rollouts, moved
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.optim import build_optimizer, update
from reopold_vl.score import sampled_tokens, score, score_tokens
from reopold_vl.sharding import alone
from reopold_vl.types import Prompt, Rollout, TokenSignal, VisualSample

ANSWERS = 4
LENGTHS = (16, 32)  # tokens of the answers; the difference is what decoding steps cost


@dataclass(frozen=True)
class Counts:
    """Waits in a decoding step, in scoring and in a gradient pass, and in an update."""

    step: float
    scoring: int
    gradient: int
    update: int
    where: dict[str, int]
    """All of them but the steps'."""
    error: float
    """The largest difference of log-probs from the CPU's, in nats."""


def measure() -> list[Figure]:
    """In a process of its own."""
    found = printed("benchmarks.figures.waits")
    ours, theirs = Counts(**found["ours"]), found["transformers"]
    # Ended answers are asked for at every eighth step; the scores are fetched once, log-probs and entropies.
    parts = (
        ("a decoding step", ours.step, "transformers generate", theirs["step"], 1 / 8),
        ("scoring of answers to pictures", ours.scoring, "transformers forward", theirs["scoring"], 2),
        ("gradient pass of answers to pictures", ours.gradient, "transformers, backward too", theirs["gradient"], 0),
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
            checks={"log-prob": (ours.error, 1e-5)},
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
        for k in range(3)
    ]


def noted(work: Callable[[], Any]) -> tuple[Any, list[pretend_gpu.Wait]]:
    """What `work` returns, and its waits."""
    with pretend_gpu.waits() as found:
        return work(), list(found)


def per_step(work: Callable[[int], Any]) -> float:
    """Waits for each token more; `work` takes the length of the answers."""
    short, long = (len(noted(lambda length=length: work(length))[1]) for length in LENGTHS)
    return (long - short) / (LENGTHS[1] - LENGTHS[0])


def sampled(model: VisionLanguageModel, prompts: Sequence[Prompt], length: int) -> list[Rollout]:
    """Answers of exactly `length` tokens."""
    engine = replace(model.engine(rows_at_once=64), eos_ids=(-1,))
    return engine.generate(prompts, n=ANSWERS, max_new_tokens=length, seed=0)


def count(model: VisionLanguageModel) -> tuple[Counts, list[Rollout]]:
    """Ours, and the answers that were scored. `model` stays on the pretend GPU."""
    prompts = [model.encoder(sample) for sample in samples()]
    rollouts = sampled(model, prompts, LENGTHS[0])
    expected = score_tokens(model, rollouts, rows_at_once=64)
    pretend_gpu.install()
    pretend_gpu.move(model.policy.model)
    step = per_step(lambda length: sampled(model, prompts, length))
    scored, scoring = noted(lambda: score_tokens(model, rollouts, rows_at_once=64))
    batch = score(rollouts, sampled_tokens(rollouts), expected)
    signal = TokenSignal(advantages=batch.rewards, mask=batch.mask & (batch.rewards > batch.rewards.median()))

    def gradient() -> None:
        rows, learner = torch.arange(len(rollouts)), alone(model.policy)
        learn.piece_loss(learner, None, rollouts, batch, signal, rows, kept=1, pad_id=model.pad_id).loss.backward()

    _, slope = noted(gradient)
    weights = [weight for weight in model.policy.parameters() if weight.grad is not None]
    optimizer = build_optimizer(model.policy, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    _, updating = noted(lambda: update(optimizer, scheduler, weights, max_grad_norm=1.0))
    where = Counter(f"{wait.what} in {wait.where}" for wait in [*scoring, *slope, *updating])
    error = float((scored.logprobs - expected.logprobs).abs().max())
    return Counts(step, len(scoring), len(slope), len(updating), dict(where), error), rollouts


def count_plain(model: VisionLanguageModel, rollouts: list[Rollout]) -> dict[str, float]:
    """transformers' own, for as many answers; `model` is on the pretend GPU."""
    prompts = list({id(rollout.prompt): rollout.prompt for rollout in rollouts}.values())
    return {
        "step": per_step(lambda length: generated(model, prompts, length)),
        "scoring": len(noted(lambda: forward(model, rollouts))[1]),
        "gradient": len(noted(lambda: forward(model, rollouts).sum().backward())[1]),
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
