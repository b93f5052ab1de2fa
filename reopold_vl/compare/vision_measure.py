"""What one model makes of its pictures: greedy accuracy with less to see, and what a picture adds to each token."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reopold_vl.assemble import load_splits
from reopold_vl.compare.vision_summary import CONDITIONS
from reopold_vl.config import TrainConfig
from reopold_vl.data import DataError
from reopold_vl.degrade import degraded, with_other_pictures
from reopold_vl.grading import grade
from reopold_vl.images import ImageError
from reopold_vl.models import VisionLanguageModel
from reopold_vl.report.table import Graded
from reopold_vl.score import score_tokens
from reopold_vl.splits import embedded_splits
from reopold_vl.teachers import Answerer, Teacher
from reopold_vl.types import Answer, Rollout, VisualSample


@dataclass(frozen=True)
class Problems:
    """Test problems with a picture; `swapped` are those that another problem's picture could be found for, with it."""

    samples: tuple[VisualSample, ...]
    swapped: Mapping[int, VisualSample]
    """By the identity of the sample."""
    without_picture: int
    train: Sequence[VisualSample]
    """What the teacher is checked on, as in training."""
    notes: tuple[str, ...] = ()
    """What the user should know of rows that were left out."""

    @property
    def num_answers(self) -> int:
        """Greedy answers that measuring one model takes."""
        return 3 * len(self.samples) + len(self.swapped)


def problems_of(config: TrainConfig, num: int) -> Problems:
    """The first `num` of the run's own test problems. Raises DataError where none has a picture."""
    if config.data.path is None:  # its curves' problems, which take as long to draw, are not needed here
        splits = embedded_splits(validation_rows=0, test_rows=min(num, config.data.test_rows))
    else:
        splits = load_splits(config)
    test = splits.test[:num]
    samples = tuple(sample for sample in test if sample.images)
    if not samples:
        raise DataError(f"{config.name}: none of the {len(test)} test problems has a picture: there is nothing to see")
    others = zip(samples, with_other_pictures(samples), strict=True)
    swapped = {id(sample): other for sample, other in others if other is not None}
    return Problems(samples, swapped, len(test) - len(samples), splits.train, splits.notes)


@dataclass(frozen=True)
class Shown:
    """A model that is shown something else than each question's own picture; the question is graded as it was."""

    model: Answerer
    change: Callable[[VisualSample], VisualSample]

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """See `Answerer.answer`."""
        changed = [self.change(sample) for sample in samples]
        return self.model.answer(changed, max_new_tokens=max_new_tokens, rows_at_once=rows_at_once)


@dataclass(frozen=True)
class Watched:
    """A model in this process whose answers are looked at, tokens and all, before only their text is left."""

    model: VisionLanguageModel
    look: Callable[[list[Rollout]], object]

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """The answers of `VisionLanguageModel.answer`."""
        prompts, reasons = self.model.encoder.encode_all(samples)
        engine = self.model.engine(rows_at_once=rows_at_once)
        rollouts = engine.generate(prompts, n=1, max_new_tokens=max_new_tokens, seed=0, temperature=0.0)
        if rollouts:
            self.look(rollouts)
        decode = self.model.tokenizer.decode
        found = {
            id(one.prompt.sample): Answer(decode(one.response_ids, skip_special_tokens=True), one.finish_reason)
            for one in rollouts
        }
        return [found.get(id(sample)) for sample in samples], reasons


@dataclass(frozen=True)
class Advantages:
    """VA_t = log pi(y_t | image) - log pi(y_t | pixelated image), in nats, of all tokens that were looked at.

    Signed, where VA-OPD (arXiv 2605.21924, Eq. 2) cuts at 0. `own` is under the model that wrote the tokens, `judged`
    under the teacher; empty where neither is known.
    """

    model: VisionLanguageModel
    judge: Teacher | None
    rows_at_once: int
    own: list[Tensor] = field(default_factory=list)
    judged: list[Tensor] = field(default_factory=list)

    def look(self, rollouts: list[Rollout]) -> None:
        """Take the tokens of these answers in. Raises TeacherError where the teacher is lost."""
        encoder = self.model.encoder
        less = [
            replace(one, prompt=encoder(degraded(one.prompt.sample, "pixelated", allow_url=encoder.allow_url)))
            for one in rollouts
        ]
        seen, blind = (score_tokens(self.model, each, rows_at_once=self.rows_at_once) for each in (rollouts, less))
        self.own.append(differences(rollouts, seen.logprobs, blind.logprobs))
        if self.judge is None:
            return
        scores = self.judge.score(rollouts)
        if scores.spans is None:  # spans of text are no tokens of the student's
            self.judged.append(differences(rollouts, scores.logprobs, self.judge.score(less).logprobs))


def differences(
    rollouts: Sequence[Rollout], seen: Float[Tensor, "batch time"], blind: Float[Tensor, "batch time"]
) -> Float[Tensor, " tokens"]:
    """What the picture adds to the log-prob of each response token, the rollouts' tokens one after the other."""
    rows = zip(rollouts, seen - blind, strict=True)
    return torch.cat([row[: len(rollout.response_ids)] for rollout, row in rows])


def advantage_figures(values: Sequence[Tensor], threshold: float) -> dict[str, float] | None:
    """Mean in nats, mean of what is above 0 (VA-OPD's VA), share of tokens above `threshold`; None for no tokens."""
    if not values:
        return None
    tokens = torch.cat(list(values)).double()
    return {
        "mean": float(tokens.mean()),
        "positive_mean": float(tokens.clamp(min=0).mean()),
        "share_above": float((tokens > threshold).double().mean()),
        "tokens": len(tokens),
    }


def measure(
    answerer: Answerer,
    problems: Problems,
    advantages: Advantages | None,
    *,
    max_new_tokens: int,
    rows_at_once: int,
    threshold: float,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, Any]:
    """Accuracies by condition and visual advantages of one model, as JSON; `advantages` where its tokens are at hand.

    `verdicts` has a character for each of the problems: 1 right, 0 wrong, x could not be shown (and counts as wrong),
    - not asked, because no other problem's picture was to be had.
    """
    start = time.process_time()
    allow_url = advantages.model.encoder.allow_url if advantages else False
    changes: dict[str, Callable[[VisualSample], VisualSample]] = {
        "removed": lambda sample: degraded(sample, "removed"),
        "swapped": lambda sample: problems.swapped[id(sample)],
        "pixelated": lambda sample: _pixelated(sample, allow_url),
    }
    right = Watched(advantages.model, advantages.look) if advantages else answerer
    asked = {name: right if name == "right" else Shown(answerer, changes[name]) for name in CONDITIONS}
    conditions = {}
    for name, one in asked.items():
        own = [sample for sample in problems.samples if name != "swapped" or id(sample) in problems.swapped]
        graded = grade(one, own, max_new_tokens=max_new_tokens, rows_at_once=rows_at_once, progress=progress)
        conditions[name] = _condition(problems.samples, own, graded)
    return {
        "num": len(problems.samples),
        "without_picture": problems.without_picture,
        "conditions": conditions,
        "visual_advantage": {
            "own": advantage_figures(advantages.own if advantages else [], threshold),
            "teacher": advantage_figures(advantages.judged if advantages else [], threshold),
        },
        "cpu_seconds": time.process_time() - start,
    }


def _pixelated(sample: VisualSample, allow_url: bool) -> VisualSample:
    try:
        return degraded(sample, "pixelated", allow_url=allow_url)
    except ImageError:
        return sample  # it cannot be shown as it is either, and is counted as that


def _condition(
    samples: Sequence[VisualSample], own: Sequence[VisualSample], graded: Sequence[Graded]
) -> dict[str, Any]:
    """Accuracy over the problems that were asked, overall and by question type; each problem's verdict."""
    marks = {id(sample): item for sample, item in zip(own, graded, strict=True)}
    types: dict[str, list[bool]] = {}
    for item in graded:
        types.setdefault(item.source, []).append(item.correct)
    verdicts = [_verdict(marks.get(id(sample))) for sample in samples]
    right = verdicts.count("1")
    return {
        "accuracy": right / len(own) if own else None,
        "right": right,
        "num": len(own),
        "failed": verdicts.count("x"),
        "by_type": {name: sum(each) / len(each) for name, each in sorted(types.items())},
        "verdicts": "".join(verdicts),
    }


def _verdict(item: Graded | None) -> str:
    if item is None:
        return "-"
    return "x" if item.finish_reason == "failed" else str(int(item.correct))
