"""Generation: batches, samples, resume, encoding ahead, and parity with the grading of training."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generating import BENCH, WARM, answers, jobs, texts
from stored import SETTINGS, response

from eval.generate import Generator, plan, remaining
from eval.responses import append_responses, read_responses
from eval.score import grade
from eval.types import Problem
from reopold_vl import grading
from reopold_vl.models import VisionLanguageModel
from reopold_vl.prompts import PromptEncoder
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.zoo import task as zoo_task


def test_batches_hold_all_jobs_longest_first(student: VisionLanguageModel, problems: list[Problem]) -> None:
    wanted = jobs(problems, 3)
    batches = plan(wanted, student.encoder, batch_size=7)
    assert sorted(job.key for batch in batches for job in batch) == sorted(job.key for job in wanted)
    assert max(map(len, batches)) == 6  # the samples of a problem stay together
    lengths = [len(batch[0].prompt) for batch in batches]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in plan(jobs(problems[:1], 5), student.encoder, batch_size=2)] == [2, 2, 1]
    assert plan([], student.encoder, batch_size=4) == []


def test_what_remains_is_batched_as_before(student: VisionLanguageModel, problems: list[Problem]) -> None:
    batches = plan(jobs(problems), student.encoder, batch_size=4)
    first, second, *others = batches
    done = {job.key: response(0, key=job.key) for job in first}
    assert remaining(batches, done) == [second, *others]
    interrupted = {**done, second[0].key: response(0)}
    assert remaining(batches, interrupted) == [second, *others]  # written last: repeated as a whole
    elsewhere = {second[0].key: response(0), **done}
    assert remaining(batches, elsewhere) == [second[1:], *others]
    assert remaining(batches, {job.key: response(0) for batch in batches for job in batch}) == []


def test_greedy_accuracy_is_that_of_training(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path
) -> None:
    found = answers(student, jobs(problems), tmp_path / "responses_embedded.jsonl")
    graded = grade(BENCH, [found[job.key] for job in jobs(problems)], "strict")
    samples = zoo_task.problems("test", len(problems))
    theirs = grading.grade(student, samples, max_new_tokens=SETTINGS.max_new_tokens, rows_at_once=256)
    assert [item.response.text for item in graded] == [item.response for item in theirs]
    assert [item.correct for item in graded] == [item.correct for item in theirs]
    assert 0 < sum(item.correct for item in graded) < len(graded)
    one = graded[0].response
    assert one.tokens > 1 and one.prompt_tokens > 9 and one.seconds > 0 and one.finish_reason == "stop"


@pytest.mark.parametrize("lost", [1, 9, 40])
def test_resumed_answers_are_those_of_a_straight_run(
    lost: int, student: VisionLanguageModel, problems: list[Problem], tmp_path: Path
) -> None:
    wanted = jobs(problems, 3)
    straight = answers(student, wanted, tmp_path / "straight.jsonl", settings=WARM, batch_size=9)
    whole = (tmp_path / "straight.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "responses_embedded.jsonl"
    path.write_bytes(b"".join(whole[:-lost]) + whole[-lost][:50])
    assert texts(answers(student, wanted, path, settings=WARM, batch_size=9)) == texts(straight)


def test_samples_differ_and_follow_from_the_seed(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path
) -> None:
    wanted = jobs(problems[-6:], 4)
    one, again, other = (
        texts(answers(student, wanted, tmp_path / f"{name}.jsonl", settings=replace(WARM, seed=seed)))
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    )
    assert one == again and one != other
    assert any(len({one[f"{problem.id}/{sample}"] for sample in range(4)}) > 1 for problem in problems[-6:])


def test_a_larger_limit_generates_only_what_is_missing(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "responses_embedded.jsonl"
    few = answers(student, jobs(problems[::2]), path, batch_size=4)
    asked: list[str] = []
    generate = HFEngine.generate

    def counted(self: HFEngine, prompts: Sequence, **settings: Any) -> list:
        asked.extend(prompt.sample.id for prompt in prompts)
        return generate(self, prompts, **settings)

    monkeypatch.setattr(HFEngine, "generate", counted)
    everything = answers(student, jobs(problems), path, batch_size=4)
    assert len(everything) == 22 and {key: everything[key] for key in few} == few
    assert len(asked) < 11 + 4  # at most one batch is done again


def test_images_are_decoded_ahead_in_another_thread(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    threads: set[str] = set()
    call = PromptEncoder.__call__

    def watched(self: PromptEncoder, sample: object) -> object:
        threads.add(threading.current_thread().name)
        encoded.append(sample.id)  # pyright: ignore[reportAttributeAccessIssue]
        return call(self, sample)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(PromptEncoder, "__call__", watched)
    wanted = jobs(problems[:9])
    batches = plan(wanted, student.encoder, batch_size=3)
    generator = Generator(student, bench="embedded", settings=SETTINGS, batch_size=3)
    run = generator.run(batches, tmp_path / "x.jsonl", done={})
    next(run)
    begun = len(encoded)
    assert 3 <= begun <= 6  # one batch ahead and no further
    assert len(list(run)) == 2
    assert all(name.startswith("encode") for name in threads)
    assert len(encoded) == 9


def test_a_problem_is_encoded_once_for_all_its_samples(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    call = PromptEncoder.__call__
    monkeypatch.setattr(PromptEncoder, "__call__", lambda self, sample: (calls.append(sample), call(self, sample))[1])
    answers(student, jobs(problems[:2], 4), tmp_path / "x.jsonl", settings=WARM)
    assert len(calls) == 2


def test_a_batch_is_on_the_disk_before_the_next_begins(
    student: VisionLanguageModel, problems: list[Problem], tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    append_responses(path, [])
    generator = Generator(student, bench="embedded", settings=SETTINGS, batch_size=4)
    for count, _ in enumerate(generator.run(plan(jobs(problems), student.encoder, batch_size=4), path, done={}), 1):
        assert len(read_responses(path).responses) == min(4 * count, 22)
