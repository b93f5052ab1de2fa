"""Greedy answers graded against gold: the accuracy of the run's table and of the line that watches training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from reopold_vl import distributed
from reopold_vl.answers import is_correct
from reopold_vl.models import VisionLanguageModel
from reopold_vl.report.table import Graded
from reopold_vl.runlog import replace_text
from reopold_vl.teachers import Answerer
from reopold_vl.types import Answer, Rollout, VisualSample

CHUNK = 256  # samples whose image tensors are held at once


def grade_rollout(model: VisionLanguageModel, rollout: Rollout) -> Graded:
    """Compare the final answer of one response with the sample's gold answer; a response without one is wrong."""
    ids = torch.cat([rollout.prompt.begun_ids, rollout.response_ids])
    response = model.tokenizer.decode(ids, skip_special_tokens=True)
    return grade_answer(rollout.prompt.sample, Answer(response, rollout.finish_reason))


def grade_answer(sample: VisualSample, answer: Answer | None) -> Graded:
    """The same of an answer's text; None, a sample that could not be shown, is wrong with finish reason "failed"."""
    if answer is None:
        return Graded(sample.id, sample.source, "", False, "failed")
    correct = sample.answer is not None and is_correct(answer.text, sample.answer, sample.choices)
    return Graded(sample.id, sample.source, answer.text, correct, answer.finish_reason)


def grade(
    model: Answerer,
    samples: Sequence[VisualSample],
    *,
    max_new_tokens: int,
    rows_at_once: int,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Graded]:
    """One greedy answer to each sample, graded, in the order of `samples`.

    A sample that cannot be encoded is graded wrong with finish reason "failed": nothing leaves the denominator.
    Several processes share the samples, and each returns all answers. `progress` is called with the number of samples
    that this process has just done.
    """
    graded: list[Graded] = []
    reasons: list[str] = []
    places = distributed.share_of(samples)
    for start in range(0, len(places), CHUNK):
        chunk = [samples[place] for place in places[start : start + CHUNK]]
        answers, why_not = model.answer(chunk, max_new_tokens=max_new_tokens, rows_at_once=rows_at_once)
        reasons += why_not
        graded += [grade_answer(sample, answer) for sample, answer in zip(chunk, answers, strict=True)]
        progress(len(chunk))
    reasons = [reason for each in distributed.gather_json(reasons) for reason in each]
    if reasons:
        tqdm.write(
            f"{len(reasons)} of {len(samples)} problems cannot be shown to the model and count as wrong: {reasons[0]}"
        )
    found = distributed.gather_json([vars(item) for item in graded])
    return [Graded(**found[place % len(found)][place // len(found)]) for place in range(len(samples))]


def accuracy(graded: Sequence[Graded]) -> float:
    """Share of right answers; 0 for none."""
    return sum(item.correct for item in graded) / max(len(graded), 1)


def write_graded(graded: Sequence[Graded], path: Path) -> None:
    """One JSON object a line, whole or not at all."""
    replace_text(path, "".join(json.dumps(vars(item), ensure_ascii=False) + "\n" for item in graded))


def read_graded(path: Path) -> list[Graded]:
    """What `write_graded` wrote."""
    return [Graded(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
