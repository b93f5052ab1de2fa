"""What the teacher writes itself: whole answers for the student to copy, or beginnings for it to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reopold_vl.models import VisionLanguageModel
from reopold_vl.score import score_tokens
from reopold_vl.teachers.local import LocalTeacher, begun
from reopold_vl.types import Prompt, Rollout


def write_answers(
    teacher: LocalTeacher,
    student: VisionLanguageModel,
    prompts: Sequence[Prompt],
    *,
    n: int,
    max_new_tokens: int,
    seed: int,
    keys: Sequence[int],
    rows_at_once: int,
) -> list[Rollout]:
    """`n` answers of the teacher to each of the student's prompts, at temperature 1 (`Engine.generate` has more).

    Their log-probs and entropies are the student's, as in any rollout.
    """
    written = _written(teacher, prompts, n, max_new_tokens, seed, keys, rows_at_once)
    own = [replace(rollout, prompt=prompts[row // n]) for row, rollout in enumerate(written)]
    stats = score_tokens(student, own, rows_at_once=teacher.rows_at_once)
    return [
        replace(
            rollout,
            logprobs=stats.logprobs[row, : len(rollout.response_ids)],
            entropy=stats.entropy[row, : len(rollout.response_ids)],
        )
        for row, rollout in enumerate(own)
    ]


def begin_answers(
    teacher: LocalTeacher,
    prompts: Sequence[Prompt],
    share: float,
    *,
    max_new_tokens: int,
    seed: int,
    keys: Sequence[int],
    rows_at_once: int,
) -> list[Prompt]:
    """The prompts with the first `share` of an answer of the teacher's behind each, the same for all its rollouts.

    At least one token, such as the end, is left to the student.
    """
    written = _written(teacher, prompts, 1, max_new_tokens, seed, keys, rows_at_once)
    answers = [rollout.response_ids for rollout in written]
    kept = [min(int(share * len(ids)), len(ids) - 1) for ids in answers]
    return [begun(prompt, ids[:length]) for prompt, ids, length in zip(prompts, answers, kept, strict=True)]


def _written(
    teacher: LocalTeacher,
    prompts: Sequence[Prompt],
    n: int,
    max_new_tokens: int,
    seed: int,
    keys: Sequence[int],
    rows_at_once: int,
) -> list[Rollout]:
    """To the prompts as the teacher sees them."""
    seen = prompts if teacher.share_prompts else [teacher.model.encoder(prompt.sample) for prompt in prompts]
    engine = teacher.model.engine(rows_at_once=rows_at_once)
    return engine.generate(seen, n=n, max_new_tokens=max_new_tokens, seed=seed, keys=keys)
