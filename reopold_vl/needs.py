"""What an objective needs beyond both models' log-probs: whether it can be had, and its computation once a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reopold_vl.config.base import ConfigError
from reopold_vl.degrade import degraded
from reopold_vl.divergence import DivergenceLoss, divergences
from reopold_vl.lora import base_alone
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.score import score_tokens
from reopold_vl.teachers import Teacher
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.spans import SpanTeacher
from reopold_vl.types import Objective, Prompt, Rollout, ScoredBatch, VisualSample

TEACHER_FIELDS = {"divergence", "blind_teacher_logprobs"}  # of ScoredBatch: more of the teacher than its scores
LOOKED_AT = 8  # samples among which one must have an answer


@dataclass(frozen=True)
class Extras:
    """Fills in the optional fields of ScoredBatch that `objective` names. `reference` is the student before training;
    None where that is the student without its adapter."""

    objective: Objective
    student: VisionLanguageModel
    teacher: Teacher
    rows_at_once: int
    reference: VisionLanguageModel | None = None

    def fill(self, batch: ScoredBatch, rollouts: Sequence[Rollout]) -> ScoredBatch:
        """The batch with what takes a model to know: its start, divergences, both views of less of a picture."""
        needs, found = needs_of(self.objective), {}
        if "reference_logprobs" in needs:
            found["reference_logprobs"] = self._before_training(rollouts)
        if "divergence" in needs:
            assert isinstance(self.teacher, LocalTeacher)
            found["divergence"] = divergences(self.student, self.teacher, rollouts, rows_at_once=self.rows_at_once)
        blind = [name for name in needs if name.startswith("blind_")]
        unseen = self._with_less_to_see(rollouts) if blind else []
        if "blind_teacher_logprobs" in needs:
            found["blind_teacher_logprobs"] = self.teacher.score(unseen).logprobs
        if "blind_student_logprobs" in needs:
            found["blind_student_logprobs"] = self._scored(self.student, unseen)
        return replace(batch, **found)

    def grade(self, batch: ScoredBatch, rollouts: Sequence[Rollout], correct: Sequence[bool]) -> ScoredBatch:
        """The batch with what the answers of all processes together say: verdicts, and who has the same prompt."""
        needs, found = needs_of(self.objective), {}
        if "correct" in needs:
            found["correct"] = torch.tensor(correct, dtype=torch.float32)
        if "groups" in needs:
            numbers = {key: number for number, key in enumerate(dict.fromkeys(id(one.prompt) for one in rollouts))}
            found["groups"] = torch.tensor([numbers[id(rollout.prompt)] for rollout in rollouts])
        return replace(batch, **found)

    @property
    def divergence(self) -> DivergenceLoss | None:
        """The loss of an objective of the second contract; None for one of the first."""
        objective: Any = self.objective
        if not hasattr(objective, "token_loss"):
            return None
        assert isinstance(self.teacher, LocalTeacher)
        return DivergenceLoss(objective, self.teacher)

    def _before_training(self, rollouts: Sequence[Rollout]) -> Float[Tensor, "batch time"]:
        if self.reference is None:
            with base_alone(self.student.policy.model):
                return self._scored(self.student, rollouts)
        rest, place = self.reference.policy.device, self.student.policy.device
        if rest == place:
            return self._scored(self.reference, rollouts)
        self.reference.policy.to(place)  # it rests on the CPU: the GPU's memory is the student's
        try:
            return self._scored(self.reference, rollouts)
        finally:
            self.reference.policy.to(rest)

    def _scored(self, model: VisionLanguageModel, rollouts: Sequence[Rollout]) -> Float[Tensor, "batch time"]:
        return score_tokens(model, rollouts, rows_at_once=self.rows_at_once).logprobs

    def _with_less_to_see(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The same answers to prompts with degraded pictures. Raises ValueError for a prompt that cannot be made."""
        kind = getattr(self.objective, "blind")  # noqa: B009  (not in the protocol: few have it)
        prompts: dict[int, Prompt] = {}
        for rollout in rollouts:
            if id(rollout.prompt) not in prompts:
                sample = degraded(rollout.prompt.sample, kind, allow_url=self.student.encoder.allow_url)
                prompts[id(rollout.prompt)] = self.student.encoder(sample)
        return [replace(rollout, prompt=prompts[id(rollout.prompt)]) for rollout in rollouts]


def needs_of(objective: Objective) -> frozenset[str]:
    """The optional fields of ScoredBatch that it reads."""
    return getattr(objective, "needs", frozenset())


def teacher_answers(objective: Objective) -> bool:
    """Whether the teacher's own answers are trained on."""
    return getattr(objective, "sampler", "student") == "teacher"


def prefix_share(objective: Objective, step: int) -> float:
    """The share of its own answer that the teacher writes before the student goes on."""
    share = getattr(objective, "prefix_share", None)
    return 0.0 if share is None else share(step)


def teacher_writes(objective: Objective) -> bool:
    """Whether the teacher writes answers, or how they begin."""
    return teacher_answers(objective) or prefix_share(objective, 0) > 0


def require_overlap(objective: Objective, overlap: str, *, shard_teacher: bool) -> None:
    """Raises ConfigError where two threads would use the teacher at once: `rollout.overlap` has one score answers."""
    if overlap == "none":
        return
    writes = teacher_writes(objective)
    whole = hasattr(objective, "token_loss") or not needs_of(objective).isdisjoint(TEACHER_FIELDS)
    if shard_teacher or writes or (overlap == "step" and whole):
        why = "distributed.shard_teacher" if shard_teacher else f"objective {_name(objective)}"
        allowed = "none" if shard_teacher or writes else "none or parts"
        raise ConfigError(f"rollout.overlap is {overlap}: allowed is {allowed} with {why}")


def require_possible(
    objective: Objective, teacher: Teacher, samples: Sequence[VisualSample], *, shard_teacher: bool, processes: int
) -> None:
    """Raises ConfigError, before the run starts, where the teacher or the data cannot give what `objective` needs."""
    name = _name(objective)
    needs = needs_of(objective)
    whole = "divergence" in needs or hasattr(objective, "token_loss")
    if whole or teacher_writes(objective):
        if not isinstance(teacher, LocalTeacher) or isinstance(teacher, SpanTeacher):
            raise ConfigError(
                f"objective is {name}, and the teacher is {teacher.name}: allowed is one teacher in this process with "
                "the student's tokenizer (a directory, a Hub id or zoo:teacher; no routes; teacher.align tokens)"
            )
        if shard_teacher:
            raise ConfigError(f"distributed.shard_teacher is True: allowed is False with objective {name}")
    if prefix_share(objective, 0) > 0 and processes > 1:
        raise ConfigError(f"objective.prefix_steps is set: allowed is None in {processes} processes")
    if any(field.startswith("blind_") for field in needs) and isinstance(teacher, SpanTeacher):
        raise ConfigError(f"teacher.align is text: allowed is tokens with objective {name}")
    if "correct" in needs and not any(sample.answer is not None for sample in samples[:LOOKED_AT]):
        raise ConfigError(f"objective is {name}: it needs rows with an answer, and the first ones have none")


def _name(objective: Objective) -> str:
    return next(name for name, kind in OBJECTIVES.items() if type(objective) is kind)
