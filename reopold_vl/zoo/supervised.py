"""Supervised training of the embedded pair from scratch: first see, then describe, then reason, then (student) hurry.

The order is what makes it work at this size. A tower that already tells cells apart before the language model learns
(`train_seeing`) saves tens of thousands of samples, and so do pure descriptions before the first question.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from reopold_vl.zoo.batches import VISUAL_TOKENS, grids, pixel_patches, positions, supervised_batch
from reopold_vl.zoo.muon import MatrixAndRest
from reopold_vl.zoo.questions import ITEMS
from reopold_vl.zoo.render import SIDE
from reopold_vl.zoo.task import DESCRIBE, TYPES, Problem, describe, problem

WORDS = ("empty", *(str(digit) for digit in range(10)), *ITEMS)
VISUAL_NORM = 0.6  # of a visual token after `train_seeing`, near the word embeddings'
# The first question types: one token per cell, so that the model learns to keep its place before anything else.
FIRST = ("count", "larger")
EASY = ("look up", "find", "count", "which row", "largest", "larger")
Row = tuple[Image.Image, str, str]  # image, question, response
Writer = Callable[[Problem, Random], str]  # the response to train on


@dataclass(frozen=True)
class Stage:
    """A stretch of `samples` in which `describe` is the share of image descriptions and `kinds` the question types."""

    samples: int
    describe: float
    kinds: tuple[str, ...] = tuple(TYPES)


def gold_steps(item: Problem, _: Random) -> str:
    """The writer of full answers."""
    return item.steps


def train_seeing(model, *, images: int, seed: int, batch_size: int = 32, lr: float = 3e-3) -> float:
    """Train tower and merger to name each cell's word, row and column; returns the share of words named right.

    The linear heads are thrown away afterwards, and the merger's last layer is scaled so that visual tokens have the
    word embeddings' norm.
    """
    torch.manual_seed(seed)
    heads = nn.Linear(model.config.text_config.hidden_size, len(WORDS) + 2 * SIDE)
    optimizer = MatrixAndRest([(model.model.visual, 1.0), (heads, 1.0)])
    cells = torch.arange(VISUAL_TOKENS).repeat(batch_size)
    steps, hits = images // batch_size, 0.0
    items: list[Problem] = []
    for step in range(steps):
        items = [problem("train", step * batch_size + i, seed=seed) for i in range(batch_size)]
        words = torch.tensor([WORDS.index(word) for item in items for word in item.question.grid])
        features = _visual_tokens(model, items)
        named, row, column = heads(features).split([len(WORDS), SIDE, SIDE], dim=-1)
        loss = F.cross_entropy(named, words)
        loss = loss + 0.5 * F.cross_entropy(row, cells // SIDE) + 0.5 * F.cross_entropy(column, cells % SIDE)
        loss.backward()
        optimizer.update(lr * min(1.0, (step + 1) / 30, 2 * (1 - step / steps) + 0.02))
        hits = 0.95 * hits + 0.05 * (named.argmax(-1) == words).float().mean().item()
    with torch.no_grad():
        norm = _visual_tokens(model, items).norm(dim=-1).mean()
        last = model.model.visual.merger.mlp[-1]
        last.weight.mul_(VISUAL_NORM / norm)
        last.bias.mul_(VISUAL_NORM / norm)
    return hits


def _visual_tokens(model, items: Sequence[Problem]) -> torch.Tensor:
    """[9 * items, hidden]."""
    pixels = pixel_patches([item.sample.images[0] for item in items])
    return torch.cat(model.model.get_image_features(pixels, grids(len(items)), return_dict=True).pooler_output)


def train_language(
    model,
    tokenizer,
    stages: Sequence[Stage],
    *,
    seed: int,
    lr: float,
    batch_size: int = 8,
    decay: float = 0.45,
    vision_lr_scale: float = 0.3,
    writer: Writer = gold_steps,
    report: Callable[[int, float], None] | None = None,  # (samples so far, mean loss lately)
    report_every: int = 1000,
) -> None:
    """Cross-entropy on responses through all stages; the learning rate falls over the last `decay` of the steps."""
    optimizer = MatrixAndRest([(model.model.visual, vision_lr_scale), (model, 1.0)])
    rows = training_rows(stages, seed=seed, writer=writer)
    steps = sum(stage.samples for stage in stages) // batch_size
    model.train()
    recent = 0.0
    for step in range(steps):
        batch = supervised_batch(tokenizer, [next(rows) for _ in range(batch_size)])
        hidden = model.model(
            input_ids=batch.ids,
            pixel_values=batch.pixels,
            image_grid_thw=grids(batch_size),
            position_ids=positions(model, batch.ids).expand(3, batch_size, -1),
            use_cache=False,
        ).last_hidden_state
        answered = batch.targets != -100
        loss = F.cross_entropy(model.lm_head(hidden[answered]), batch.targets[answered])
        loss.backward()
        optimizer.update(lr * _schedule(step, steps, decay))
        recent += loss.item() / report_every
        if report and (step + 1) % report_every == 0:
            report((step + 1) * batch_size, recent)
            recent = 0.0
    model.eval()


def training_rows(stages: Sequence[Stage], *, seed: int, writer: Writer):
    """Yield (image, question, response) through the stages; every problem is drawn once."""
    rng = Random(f"rows/{seed}")
    index = 0
    for stage in stages:
        for _ in range(stage.samples):
            item = problem("train", index, seed=seed + 1, kind=rng.choice(stage.kinds))
            index += 1
            if rng.random() < stage.describe:
                yield item.sample.images[0], DESCRIBE, describe(item.question.grid)
            else:
                yield item.sample.images[0], item.sample.question, writer(item, rng)


def _schedule(step: int, steps: int, decay: float) -> float:
    """Linear warm-up over 100 steps, constant, then a cosine to 1 % over the last `decay` of the steps."""
    warm = min(1.0, (step + 1) / 100)
    late = max(0.0, (step - (1 - decay) * steps) / (decay * steps)) if decay else 0.0
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * late)))


class Clock:
    """Wall and CPU seconds since the start, for progress lines."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self.wall:.0f} s wall, {time.process_time() - self.cpu:.0f} s CPU"
