"""TRL's trainers on the same model, images and seeds: what they cost a step, and how often they touch an image."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.figures.setup import LEARNING_RATE, Counts, counted
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import VisualSample


def installed() -> bool:
    """Whether the extra `peers` is there."""
    return find_spec("trl") is not None


@dataclass
class Cost:
    """CPU seconds and images touched in the measured steps, and the response tokens that were trained on in them."""

    seconds: float = 0.0
    tokens: int = 0
    images: int = 0
    padded: int = 0
    real: int = 0
    counts: Counts = field(default_factory=Counts)

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens


def grpo(
    model: VisionLanguageModel, questions: Sequence[VisualSample], *, n: int, response: int, updates: int, batches: int
) -> Cost:
    """GRPOTrainer: all questions with `n` answers make one generation batch, trained on in `updates` steps.

    The first generation batch is to warm up; then `batches` are measured.
    """
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore

    rows = len(questions) * n
    config = GRPOConfig(
        **_settings(model, rows // updates, response, steps=updates * (batches + 1)),
        num_generations=n,
        steps_per_generation=updates,
        num_iterations=1,
    )
    cost = Cost(tokens=rows * response * batches, images=len(questions))
    trainer = GRPOTrainer(
        model=model.policy.model,
        reward_funcs=lambda completions, **_: [float(index % 3) for index in range(len(completions))],
        args=config,
        train_dataset=_data(questions),
        processing_class=model.processor,
    )
    return _run(trainer, model, cost, warm=updates, models=[model])


def distillation(
    model: VisionLanguageModel,
    teacher: VisionLanguageModel,
    questions: Sequence[VisualSample],
    *,
    response: int,
    batches: int,
) -> Cost:
    """DistillationTrainer at beta = 1 (reverse KL): one answer to each question, one update a batch."""
    from trl import DistillationConfig, DistillationTrainer  # pyright: ignore

    config = DistillationConfig(
        **_settings(model, len(questions), response, steps=batches + 1), beta=1.0, gradient_accumulation_steps=1
    )
    cost = Cost(tokens=len(questions) * response * batches, images=len(questions))
    trainer = DistillationTrainer(
        model=model.policy.model,
        teacher_model=teacher.policy.model,
        args=config,
        train_dataset=_data(questions),
        processing_class=model.processor,
    )
    return _run(trainer, model, cost, warm=1, models=[model, teacher])


def _settings(model: VisionLanguageModel, rows: int, response: int, *, steps: int) -> dict[str, Any]:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    return {
        "output_dir": tempfile.mkdtemp(prefix="trl-"),
        "per_device_train_batch_size": rows,
        "max_completion_length": response,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "temperature": 1.0,
        # As in our engine: no placeholder, nothing past the tokenizer's last id, and no end before the longest answer.
        "generation_kwargs": {"suppress_tokens": sorted({*model.banned_ids, *model.eos_ids, model.pad_id})},
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }


def _data(questions: Sequence[VisualSample]) -> Any:
    from datasets import Dataset, Features, Image, List, Value

    rows = [
        {
            "prompt": [{"role": "user", "content": question.question}],
            "images": [{"bytes": image, "path": None} for image in question.images],
        }
        for question in questions
    ]
    message = {"role": Value("string"), "content": Value("string")}
    return Dataset.from_list(rows, features=Features({"prompt": List(message), "images": List(Image())}))


def _run(trainer: Any, model: VisionLanguageModel, cost: Cost, *, warm: int, models: list[VisionLanguageModel]) -> Cost:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        start = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == warm:
                found.towers = found.opened = found.processed = 0
                self.start = time.process_time()
            if state.global_step == args.max_steps:
                cost.seconds = time.process_time() - self.start

    trainer.add_callback(Clock())
    with warnings.catch_warnings(), counted(model.processor, *(each.policy.model for each in models)) as found:
        warnings.simplefilter("ignore")
        trainer.train()
    cost.counts = found
    model.policy.model.eval()
    torch.set_grad_enabled(True)
    return cost
