"""Greedy answers graded against gold: the accuracy of the run's table and of the line that watches training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from reopold_vl.answers import is_correct
from reopold_vl.models import VisionLanguageModel
from reopold_vl.report.table import Graded
from reopold_vl.runlog import replace_text
from reopold_vl.types import Rollout, VisualSample

CHUNK = 256  # samples whose image tensors are held at once


def grade_rollout(model: VisionLanguageModel, rollout: Rollout) -> Graded:
    """Compare the final answer of one response with the sample's gold answer; a response without one is wrong."""
    sample = rollout.prompt.sample
    response = model.tokenizer.decode(rollout.response_ids, skip_special_tokens=True)
    correct = sample.answer is not None and is_correct(response, sample.answer, sample.choices)
    return Graded(sample.id, sample.source, response, correct, rollout.finish_reason)


def grade(
    model: VisionLanguageModel,
    samples: Sequence[VisualSample],
    *,
    max_new_tokens: int,
    rows_at_once: int,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Graded]:
    """One greedy answer to each sample, graded, in the order of `samples`.

    A sample that cannot be encoded is graded wrong with finish reason "failed": nothing leaves the denominator.
    `progress` is called with the number of samples just done.
    """
    engine = model.engine(rows_at_once=rows_at_once)
    graded: dict[str, Graded] = {}
    reasons: list[str] = []
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        prompts, why_not = model.encoder.encode_all(chunk)
        reasons += why_not
        rollouts = engine.generate(prompts, n=1, max_new_tokens=max_new_tokens, seed=0, temperature=0.0)
        graded.update({rollout.prompt.sample.id: grade_rollout(model, rollout) for rollout in rollouts})
        progress(len(chunk))
    if reasons:
        tqdm.write(
            f"{len(reasons)} of {len(samples)} problems cannot be shown to the model and count as wrong: {reasons[0]}"
        )
    failed = {sample.id: Graded(sample.id, sample.source, "", False, "failed") for sample in samples}
    return [graded.get(sample.id, failed[sample.id]) for sample in samples]


def accuracy(graded: Sequence[Graded]) -> float:
    """Share of right answers; 0 for none."""
    return sum(item.correct for item in graded) / max(len(graded), 1)


def write_graded(graded: Sequence[Graded], path: Path) -> None:
    """One JSON object a line, whole or not at all."""
    replace_text(path, "".join(json.dumps(vars(item), ensure_ascii=False) + "\n" for item in graded))


def read_graded(path: Path) -> list[Graded]:
    """What `write_graded` wrote."""
    return [Graded(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
