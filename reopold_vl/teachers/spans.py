"""A teacher with another tokenizer, in this process: scores on the text spans that both tokenizers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor

from reopold_vl.collate import pad_right
from reopold_vl.models import ModelError, VisionLanguageModel
from reopold_vl.prompts import PromptError, render_chat
from reopold_vl.score import score_tokens
from reopold_vl.spans import OPEN, common_spans
from reopold_vl.teachers.local import LocalTeacher, as_seen_by
from reopold_vl.token_bytes import TokenBytes, whole_characters
from reopold_vl.types import Prompt, Rollout, TeacherScores

PROBE = b"The answer is 4 + 3.5 = 7.5"  # a tokenizer that does not spell this byte for byte is of no use here
REPLY = "reply"  # stands in a chat to see what follows an answer


@dataclass(frozen=True)
class Translation:
    """One answer in the teacher's tokens `ids`; the span number of each student and each teacher token (or OPEN)."""

    ids: list[int]
    student: list[int]
    teacher: list[int]


class Translator:
    """The student's answers in the teacher's tokens.

    Special and other added tokens that both have, and the end of the answer, are spans of their own: one token each.
    Text is spelled anew by the teacher's tokenizer, and so are the student's special tokens that the teacher lacks: as
    the characters of their names. Where both tokenizers have the same ordinary tokens, under whatever ids, each token
    is its counterpart's alone, however unusual the student's spelling, and rewards are those of one tokenizer.

    Raises ModelError for a teacher whose tokenizer has no bytes to compare.
    """

    def __init__(self, student: VisionLanguageModel, teacher: VisionLanguageModel) -> None:
        try:
            self.student = TokenBytes(student.tokenizer)
            self.teacher = TokenBytes(teacher.tokenizer, banned=teacher.banned_ids)
        except ValueError as error:
            raise ModelError(f"teacher.align is text: {error}") from None
        for model, tokens in ((student, self.student), (teacher, self.teacher)):
            if b"".join(map(tokens.piece, tokens.write(PROBE))) != PROBE:
                raise ModelError(f"teacher.align is text: the bytes of {model.path}'s tokens cannot be told")
        ours, theirs = self.student.ordinary, self.teacher.ordinary
        self.same_tokens = self.student.byte_level == self.teacher.byte_level and ours.keys() == theirs.keys()
        by_name = {name: index for index, name in self.teacher.added.items() if index not in self.teacher.banned}
        self.twins = {index: by_name[name] for index, name in self.student.added.items() if name in by_name}
        if self.same_tokens:
            self.twins |= {index: theirs[token] for token, index in ours.items()}
        self.end_id = turn_end(teacher)
        self.twins |= {index: self._end(index, teacher.eos_ids) for index in student.eos_ids}

    def _end(self, index: int, eos_ids: Sequence[int]) -> int:
        """The teacher's end token for the student's: the one of the same name, else what ends the teacher's turns."""
        return self.twins[index] if self.twins.get(index) in eos_ids else self.end_id

    def __call__(self, response_ids: Sequence[int], *, cut_off: bool) -> Translation:
        """Translate one answer; `cut_off` says that it was ended by its length.

        The last span of text of such an answer ends where the length did: the teacher might have gone on within its
        token. It is left out, like everything behind the last common boundary.
        """
        ours: list[int] = []
        theirs: list[int] = []
        ids: list[int] = []
        left = len(response_ids)
        text_from = 0  # the first student token of the last run of text
        for alike, group in groupby(response_ids, key=lambda index: index in self.twins):
            run = list(group)
            left -= len(run)
            if alike:
                text_from = len(ours) + len(run)
                ids += [self.twins[index] for index in run]
                ours, theirs = ours + [1] * len(run), theirs + [1] * len(run)
                continue
            pieces = [self.student.piece(index) for index in run]
            data = b"".join(pieces)
            wanted = whole_characters(data) if cut_off and not left else data
            found = self.teacher.write(wanted)
            lengths = [len(self.teacher.piece(index)) for index in found]
            ids += found
            ours, theirs = ours + [len(piece) for piece in pieces], theirs + lengths
            if sum(lengths) < len(data):  # what follows has no counterpart
                break
        student, teacher = common_spans(ours, theirs)
        last = max(student[text_from:], default=OPEN)
        if cut_off and last != OPEN:
            student, teacher = ([OPEN if k == last else k for k in numbers] for numbers in (student, teacher))
        return Translation(ids, student + [OPEN] * (len(response_ids) - len(student)), teacher)


@dataclass(frozen=True)
class SpanTeacher(LocalTeacher):
    """A local teacher whose tokenizer differs from the student's (`teacher.align` text)."""

    translate: Translator = field(kw_only=True)

    def same_prompt(self, prompt: Prompt) -> bool:
        """Never: the ids are another tokenizer's."""
        return False

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """log pi_T of each span on all of its tokens, and the spans; see `TeacherScores`.

        Raises ValueError for a sample that the teacher cannot encode.
        """
        found = [self.translate(one.response_ids.tolist(), cut_off=one.finish_reason == "length") for one in rollouts]
        seen = [
            _spelled(rollout, translation.ids or [self.translate.end_id])
            for rollout, translation in zip(as_seen_by(self.model, rollouts), found, strict=True)
        ]
        logprobs = score_tokens(self.model, seen, rows_at_once=self.rows_at_once).logprobs
        rows = [_on_student(one, row) for one, row in zip(found, logprobs, strict=True)]
        spans = [torch.tensor(one.student) for one in found]
        return TeacherScores(pad_right(rows, 0.0), pad_right(spans, OPEN))


def span_teacher(teacher: LocalTeacher, student: VisionLanguageModel) -> SpanTeacher:
    """`teacher` for a student with another tokenizer. Raises ModelError where their texts cannot be compared."""
    return SpanTeacher(teacher.model, teacher.rows_at_once, translate=Translator(student, teacher.model))


def turn_end(model: VisionLanguageModel) -> int:
    """The end token that the model's own chat template writes behind an answer; else the first that it has."""
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "?"), ("assistant", REPLY))
    ]
    try:
        behind = render_chat(model.processor, turns).rpartition(REPLY)[2]
    except PromptError:  # some templates know the user's turns alone
        return model.eos_ids[0]
    names = {index: model.tokenizer.convert_ids_to_tokens(index) for index in model.eos_ids}
    places = {index: behind.find(name) for index, name in names.items() if name in behind}
    return min(places, key=places.__getitem__) if places else model.eos_ids[0]


def _spelled(rollout: Rollout, ids: list[int]) -> Rollout:
    """The rollout with an answer of other tokens, of which nothing else is known."""
    unknown = torch.zeros(len(ids))
    return replace(rollout, response_ids=torch.tensor(ids), logprobs=unknown, entropy=unknown)


def _on_student(translation: Translation, logprobs: Tensor) -> Tensor:
    """The sum of the teacher's `logprobs` over each span, on the student's tokens of it; 0 on those without one."""
    teacher, student = (torch.tensor(side, dtype=torch.long) for side in (translation.teacher, translation.student))
    inside = teacher >= 0
    sums = torch.zeros(len(student) + 1).index_add(0, teacher[inside], logprobs[: len(teacher)][inside])
    return torch.where(student >= 0, sums[student.clamp(min=0)], 0.0)
