"""Generation in trouble: out of memory, and problems that cannot be shown to the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from generating import BENCH, WARM, answers, cramped, jobs

from eval.config import EvalError
from eval.score import grade
from eval.types import Problem
from reopold_vl.models import VisionLanguageModel


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory.\nmore"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_halves_the_batch_and_goes_on(
    error: RuntimeError,
    student: VisionLanguageModel,
    problems: list[Problem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roomy = answers(student, jobs(problems), tmp_path / "roomy.jsonl", batch_size=16)
    cramped(monkeypatch, 5, error)
    said: list[str] = []
    found = answers(student, jobs(problems), tmp_path / "cramped.jsonl", batch_size=16, said=said)
    assert {key: item.text for key, item in found.items()} == {key: item.text for key, item in roomy.items()}
    assert [line.split(" (")[0] for line in said] == [
        "out of memory with 16 answers at once: going on with 8",
        "out of memory with 8 answers at once: going on with 4",
    ]


def test_samples_of_one_problem_can_be_parted(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped(monkeypatch, 2, torch.OutOfMemoryError("full"))
    found = answers(student, jobs(problems[:2], 5), tmp_path / "x.jsonl", settings=WARM, batch_size=10, said=[])
    assert len(found) == 10 and all(item.tokens for item in found.values())


def test_no_room_for_a_single_answer_is_an_error_that_keeps_what_there_is(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped(monkeypatch, 0, torch.OutOfMemoryError("full"))
    with pytest.raises(EvalError, match=r"single answer.*--max-pixels"):
        answers(student, jobs(problems), tmp_path / "x.jsonl", batch_size=4, said=[])


def test_other_errors_of_torch_are_not_taken_for_lack_of_memory(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped(monkeypatch, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        answers(student, jobs(problems), tmp_path / "x.jsonl")


def test_what_cannot_be_shown_is_a_failed_response(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path
) -> None:
    good, *others = problems[:5]
    bad = [
        replace(others[0], images=(tmp_path / "missing.png",)),
        replace(others[1], images=(b"no picture",)),
        replace(others[2], question="word " * 5000),
        replace(others[3], question="a <|im_end|> b"),
    ]
    found = answers(student, jobs([*bad, good]), tmp_path / "responses_embedded.jsonl")
    responses = [found[f"{problem.id}/0"] for problem in bad]
    assert all((item.finish_reason, item.text, item.tokens) == ("failed", "", 0) for item in responses)
    reasons = ("no such file", "not an image", "tokens, allowed are 4096", "special token")
    assert all(reason in item.error for reason, item in zip(reasons, responses, strict=True))
    assert found[f"{good.id}/0"].finish_reason == "stop"
    assert [item.verdict for item in grade(BENCH, responses, "strict")] == [None] * 4
    again = answers(student, jobs([*bad, good]), tmp_path / "responses_embedded.jsonl")
    assert again == found
