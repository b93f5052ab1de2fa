"""The model, the questions and the step that the figures share: Qwen2.5-VL with random weights, built from numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_shapes import Size, build_module
from reopold_vl.families import vision_tower
from reopold_vl.feature_cache import FeatureCache
from reopold_vl.learn import learn
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives import ReverseKL
from reopold_vl.optim import build_optimizer, build_scheduler
from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptEncoder
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.score import sampled_tokens, score, score_tokens
from reopold_vl.sharding import Learner, alone
from reopold_vl.types import Objective, Prompt, Rollout, ScoredBatch, TokenSignal, VisualSample
from reopold_vl.vision import freeze_vision
from reopold_vl.zoo.architecture import build_processor, build_tokenizer, token_id

MIN_PIXELS, MAX_PIXELS = 4 * 28 * 28, 1280 * 28 * 28
SIZE = Size(256, 704, 6, 4, 2, 2048, True, (8, 12, 12), 96, 256, 4, 4, (3,), 0)
TEXT = "How many stars are there, and what is the sum of the digits in the largest row?"
NEVER = (-1,)  # an end token that is not drawn: all answers have the same length
LEARNING_RATE = 1e-4


def build(seed: int = 0, *, frozen: bool = False, cache_mb: int = 0, size: Size = SIZE) -> VisionLanguageModel:
    """A model ready for use, in fp32 on the CPU; `frozen` keeps its vision layers out of training."""
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    processor.image_processor.size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    encoder = PromptEncoder(
        processor=processor,
        family="qwen2_5_vl",
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
    )
    module = build_module(size, tokenizer, dtype=torch.float32, device=torch.device("cpu"), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # larger than a fresh model's weights, so that distributions are far from uniform
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.06, generator=generator)
    freeze_vision(module, tower=frozen, projector=frozen)
    cache = FeatureCache(cache_mb) if cache_mb else None
    return VisionLanguageModel(f"random/{seed}", Policy(module, feature_cache=cache), processor, encoder)


def samples(count: int, *, side: int, images: int = 1, seed: int = 0) -> list[VisualSample]:
    """Questions about pictures of noise, `images` each, as PNG bytes that are yet to be decoded."""
    generator = np.random.default_rng(seed)
    found = []
    for index in range(count):
        pictures = [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(images)]
        found.append(VisualSample(str(index), TEXT, "4", tuple(map(_png, pictures))))
    return found


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def engine(model: VisionLanguageModel, rows: int, *, all_tokens: bool = False) -> HFEngine:
    """Samples answers that end at their longest alone; with `all_tokens` any token may be drawn."""
    made = model.engine(rows_at_once=rows)
    banned = () if all_tokens else (*made.banned_ids, *model.eos_ids)
    return HFEngine(made.policy, NEVER, made.pad_id, banned, rows)


def random_answers(prompts: Sequence[Prompt], lengths: Sequence[Sequence[int]], seed: int = 0) -> list[Rollout]:
    """Answers of random tokens; `lengths[k]` are those of the answers to `prompts[k]`."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for prompt, own in zip(prompts, lengths, strict=True):
        for length in own:
            ids = torch.randint(0, 250, (length,), generator=generator)
            stats = torch.rand(2, length, generator=generator)
            found.append(Rollout(prompt, ids, -3 * stats[0], 4 * stats[1], "length"))
    return found


@dataclass
class Step:
    """A training step as the main loop makes it, from pictures that are yet to be decoded to updated weights."""

    student: VisionLanguageModel
    teacher: VisionLanguageModel
    n: int
    response: int
    updates: int
    rows_at_once: int = 64

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.student.policy, lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0)
        self.scheduler = build_scheduler(self.optimizer, name="constant", warmup_updates=0, updates=1000)

    def run(self, questions: Sequence[VisualSample], seed: int) -> list[Rollout]:
        """All of it; the answers."""
        prompts = [self.student.encoder(question) for question in questions]
        rollouts = engine(self.student, self.rows_at_once).generate(
            prompts, n=self.n, max_new_tokens=self.response, seed=seed
        )
        batch = score(
            rollouts, sampled_tokens(rollouts), score_tokens(self.teacher, rollouts, rows_at_once=self.rows_at_once)
        )
        self.learn(rollouts, batch, ReverseKL()(batch, step=0))
        return rollouts

    def learn(
        self,
        rollouts: Sequence[Rollout],
        batch: ScoredBatch,
        signal: TokenSignal,
        learner: Learner | None = None,
    ) -> None:
        learn(
            learner or alone(self.student.policy),
            rollouts,
            batch,
            signal,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            updates=self.updates,
            rows_at_once=self.rows_at_once,
            max_grad_norm=1.0,
            pad_id=self.student.pad_id,
        )


@dataclass
class Counts:
    """Images through the vision towers, opened, and through the image processor."""

    towers: int = 0
    opened: int = 0
    processed: int = 0


@contextmanager
def counted(processor: Any, *models: Any) -> Iterator[Counts]:
    """Count what happens to images meanwhile: in `models` (transformers' own), in PIL and in the image processor."""
    counts = Counts()

    def seen(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        counts.towers += len(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1])

    handles = [vision_tower(model).register_forward_pre_hook(seen, with_kwargs=True) for model in models]
    kind = type(processor.image_processor)
    plain_open, plain_process = Image.open, kind.preprocess

    def opened(*args: Any, **kwargs: Any) -> Image.Image:
        counts.opened += 1
        return plain_open(*args, **kwargs)

    def processed(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        counts.processed += sum(len(each) if isinstance(each, list | tuple) else 1 for each in images)
        return plain_process(self, images, *args, **kwargs)

    Image.open, kind.preprocess = opened, processed
    try:
        yield counts
    finally:
        Image.open, kind.preprocess = plain_open, plain_process
        for handle in handles:
            handle.remove()


def naive_logprobs(model: VisionLanguageModel, rollout: Rollout) -> torch.Tensor:
    """What plain transformers says of the answer's tokens: one row, no padding, no cache, nothing of ours."""
    prompt = rollout.prompt
    ids = torch.cat([prompt.ids, rollout.response_ids])[None]
    types = torch.cat([prompt.token_types, torch.zeros_like(rollout.response_ids)])[None]
    output = model.policy.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=types, **dict(prompt.vision)
    )
    logits = output.logits[0, len(prompt.ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, rollout.response_ids[:, None])[:, 0]


def naive_gap(model: VisionLanguageModel, rollouts: Sequence[Rollout], logprobs: torch.Tensor) -> float:
    """The largest |ours - naive| log-prob, in nats; `logprobs` [B, T] is ours."""
    with torch.no_grad():
        gaps = [
            (logprobs[row, : len(rollout.response_ids)] - naive_logprobs(model, rollout)).abs().max()
            for row, rollout in enumerate(rollouts)
        ]
    return float(torch.stack(gaps).max())


def update_gap(model: VisionLanguageModel, rollouts: Sequence[Rollout], objective: Objective, rows: int) -> float:
    """How far one step of gradient descent moves each weight tensor, ours against plain transformers; see `tensor_gap`.

    The old log-probs are the model's own.
    """
    policy = copy.deepcopy(model.policy)
    ours, naive = replace(model, policy=policy), replace(model, policy=copy.deepcopy(policy))
    old = score_tokens(ours, rollouts, rows_at_once=rows)
    noise = torch.randn(old.logprobs.shape, generator=torch.Generator().manual_seed(8))
    batch = score(rollouts, old, old._replace(logprobs=old.logprobs + noise))
    signal = objective(batch, step=0)
    before = [weight.detach().clone() for weight in policy.parameters() if weight.requires_grad]
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    large = 2.0**10  # so that the step outweighs the weight, whose rounding would be a part of the difference
    optimizer = torch.optim.SGD(trained, lr=large)
    learn(
        alone(policy),
        rollouts,
        batch,
        signal,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, name="constant", warmup_updates=0, updates=10),
        updates=1,
        rows_at_once=rows,
        max_grad_norm=1e9,
        pad_id=model.pad_id,
    )
    for row, rollout in enumerate(rollouts):
        keep = signal.mask[row, : len(rollout.response_ids)]
        if keep.any():
            found = naive_logprobs(naive, rollout)[keep]
            ratio = (found - batch.old_logprobs[row][: len(keep)][keep]).exp()
            (-(ratio * signal.advantages[row][: len(keep)][keep]).sum() / signal.mask.sum()).backward()
    theirs = [weight for weight in naive.policy.parameters() if weight.requires_grad]
    moves = [(start - mine.detach()) / large for start, mine in zip(before, trained, strict=True)]
    pairs = [(move, plain.grad) for move, plain in zip(moves, theirs, strict=True)]
    return tensor_gap([(mine, plain) for mine, plain in pairs if plain is not None])


def tensor_gap(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The largest relative difference of two tensors, by norm; NaN stays NaN.

    A tensor counts as no smaller than a thousandth of the largest: what hardly moves holds nothing but rounding.
    """
    least = 1e-3 * max(float(other.norm()) for _, other in pairs)
    return float(torch.stack([(one - other).norm() / other.norm().clamp(min=least) for one, other in pairs]).max())
