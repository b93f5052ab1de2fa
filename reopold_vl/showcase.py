"""A few rollouts of each measured step, kept with their rewards for the HTML page at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reopold_vl.images import load_image
from reopold_vl.models import VisionLanguageModel
from reopold_vl.prompts import question_text
from reopold_vl.report.page import PageRollout, data_uri
from reopold_vl.report.table import Graded
from reopold_vl.runlog import append_step_line, read_step_file
from reopold_vl.types import IMAGE_MARKER, Rollout, ScoredBatch, TokenSignal

FILE = "sample_rollouts.jsonl"


def keep_rollouts(
    path: Path,
    step: int,
    model: VisionLanguageModel,
    rollouts: Sequence[Rollout],
    batch: ScoredBatch,
    signal: TokenSignal,
    graded: Sequence[Graded],
) -> None:
    """Append all answers to the first two prompts of the step, token by token."""
    first = {id(rollout.prompt): None for rollout in rollouts}
    chosen = set(list(first)[:2])
    for row, rollout in enumerate(rollouts):
        if id(rollout.prompt) not in chosen:
            continue
        length = len(rollout.response_ids)
        asked = question_text(rollout.prompt.sample, model.encoder.instruction)
        if rollout.prompt.begun:
            asked += f"\n\nThe teacher begins: {model.tokenizer.decode(rollout.prompt.begun_ids)}"
        record = {
            "step": step,
            "question": asked.replace(IMAGE_MARKER, " ").strip(),
            "gold": rollout.prompt.sample.answer,
            "images": [data_uri(load_image(image)) for image in rollout.prompt.sample.images],
            "tokens": [model.tokenizer.decode([token]) for token in rollout.response_ids.tolist()],
            "rewards": _finite(batch.rewards[row, :length].tolist()),
            "student_logprobs": _finite(batch.old_logprobs[row, :length].tolist()),
            "teacher_logprobs": _finite(batch.teacher_logprobs[row, :length].tolist()),
            "kept": signal.mask[row, :length].tolist(),
            "correct": graded[row].correct if rollout.prompt.sample.answer is not None else None,
            "finish_reason": rollout.finish_reason,
        }
        append_step_line(path, record)


def read_rollouts(path: Path) -> list[PageRollout]:
    """What `keep_rollouts` wrote, ready for the page."""
    return [_entry(record) for record in read_step_file(path)]


def _entry(record: dict[str, Any]) -> PageRollout:
    images = tuple(load_image(uri) for uri in record["images"])
    tuples = ("tokens", "rewards", "student_logprobs", "teacher_logprobs", "kept")
    return PageRollout(**{**record, "images": images, **{name: tuple(record[name]) for name in tuples}})


def _finite(values: list[float]) -> list[float]:
    # JSON has neither infinity nor NaN; anything below -1e3 nats reads as "impossible" all the same.
    return [max(value, -1e4) if math.isfinite(value) or value == -math.inf else 0.0 for value in values]
