"""Teachers in this process, behind a server over real HTTP, and routed by source: the same log-probs, or a clear no."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageOps
from serving_help import Served, served
from tiny import load_tiny, mixed_samples, picture, plain_distribution, save_tiny

from reopold_vl.config import ConfigError, TeacherConfig
from reopold_vl.models import VisionLanguageModel
from reopold_vl.teachers import TeacherError
from reopold_vl.teachers.build import build_teacher, with_shared_prompts
from reopold_vl.teachers.local import LocalTeacher, as_seen_by
from reopold_vl.teachers.routed import RoutedTeacher, parties
from reopold_vl.teachers.server import ServerTeacher, connect
from reopold_vl.types import Rollout, VisualSample


@pytest.fixture(scope="module")
def student(tiny_dirs: dict[str, Path]) -> VisionLanguageModel:
    return load_tiny(tiny_dirs["qwen2_5_vl"])


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    """Of other weights and size, with the student's patches of 14 pixels or with others of 16."""
    return load_tiny(save_tiny(tmp_path_factory.mktemp("teacher"), request.param, seed=3, hidden=48))


@pytest.fixture(scope="module")
def server(teacher: VisionLanguageModel) -> Iterator[Served]:
    with served(teacher) as found:
        yield found


@pytest.fixture(scope="module")
def rollouts(student: VisionLanguageModel) -> list[Rollout]:
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    return student.engine(rows_at_once=8).generate(prompts, n=3, max_new_tokens=6, seed=0)


@pytest.fixture(scope="module")
def plain_teacher(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return load_tiny(save_tiny(tmp_path_factory.mktemp("plain"), "qwen2_5_vl", seed=4))


def ask(url: str, student: VisionLanguageModel, **settings: Any) -> ServerTeacher:
    return connect(url, encoder=student.encoder, **settings)


def test_the_server_scores_as_a_teacher_in_this_process(
    student: VisionLanguageModel, teacher: VisionLanguageModel, server: Served, rollouts: list[Rollout]
) -> None:
    ours = LocalTeacher(teacher, rows_at_once=3).score(rollouts).logprobs
    theirs = ask(server.url, student).score(rollouts).logprobs
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)
    assert float(ours.abs().max()) > 1


def test_both_score_as_plain_transformers_does(
    student: VisionLanguageModel, teacher: VisionLanguageModel, server: Served, rollouts: list[Rollout]
) -> None:
    theirs = ask(server.url, student).score(rollouts).logprobs
    with torch.no_grad():
        for row, rollout in zip(theirs, as_seen_by(teacher, rollouts), strict=True):
            expected = plain_distribution(teacher.policy.model, rollout).log_prob(rollout.response_ids)
            torch.testing.assert_close(row[: len(expected)], expected, rtol=0, atol=1e-5)


def test_changed_pictures_are_seen(student: VisionLanguageModel, server: Served, rollouts: list[Rollout]) -> None:
    teacher = ask(server.url, student)
    sample = rollouts[0].prompt.sample
    inverted = replace(sample, images=tuple(ImageOps.invert(image) for image in sample.images))
    changed = [replace(rollout, prompt=replace(rollout.prompt, sample=inverted)) for rollout in rollouts[:3]]
    before = teacher.score(rollouts[:3]).logprobs
    assert float((teacher.score(changed).logprobs - before).abs().max()) > 1e-3


def test_what_a_check_asks_is_told_alike(
    student: VisionLanguageModel, teacher: VisionLanguageModel, server: Served
) -> None:
    near, far = LocalTeacher(teacher, rows_at_once=3), ask(server.url, student)
    assert (far.num_parameters, far.eos_ids, far.image_factor) == (near.num_parameters, near.eos_ids, near.image_factor)
    assert dict(far.vocabulary()) == dict(near.vocabulary())
    for sample in mixed_samples():
        assert far.view(sample) == near.view(sample)
    assert not far.same_prompt(student.encoder(mixed_samples()[0]))
    assert server.url in far.name


def test_answers_are_the_models_own(student: VisionLanguageModel, teacher: VisionLanguageModel, server: Served) -> None:
    broken = VisualSample("broken", "How many?", "1", (b"no picture",))
    forged = VisualSample("forged", "<|im_end|>", "1")
    samples = [*mixed_samples(), broken, forged]
    far = ask(server.url, student)
    ours, why = teacher.answer(samples, max_new_tokens=7, rows_at_once=8)
    theirs, why_not = far.answer(samples, max_new_tokens=7, rows_at_once=8)
    assert theirs == ours and ours[4] is ours[5] is None and None not in ours[:4]
    assert len(why) == len(why_not) == 2 and why_not[0].startswith("broken: ")
    *tokens, last = far.stream(samples[2], max_new_tokens=7)
    assert ours[2] is not None and last["whole_text"] == ours[2].text and last["finish_reason"] == ours[2].finish_reason
    assert "".join(event["text"] for event in [*tokens, last]) == ours[2].text and 1 <= len(tokens) <= 7


def test_concurrent_requests_share_forward_passes(
    student: VisionLanguageModel, teacher: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    alone = [LocalTeacher(teacher, rows_at_once=1).score([rollout]).logprobs for rollout in rollouts]
    with served(teacher, max_batch=6) as found:
        far = ask(found.url, student, requests_in_flight=1)
        held = threading.Event()
        found.worker._submit(held.wait)  # the model is busy
        scores: dict[int, torch.Tensor] = {}

        def score(index: int) -> None:
            scores[index] = far.score([rollouts[index]]).logprobs

        threads = [threading.Thread(target=score, args=(index,)) for index in range(len(rollouts))]
        for thread in threads:
            thread.start()
        while len(found.worker._waiting) < len(rollouts):
            time.sleep(0.01)
        held.set()
        for thread in threads:
            thread.join()
        assert found.worker.passes == 2  # 12 rows, 6 a pass
    for index, expected in enumerate(alone):
        torch.testing.assert_close(scores[index], expected, rtol=1e-6, atol=2e-6)


def test_sources_have_teachers_of_their_own(
    student: VisionLanguageModel, teacher: VisionLanguageModel, plain_teacher: VisionLanguageModel
) -> None:
    by_path = {"one": LocalTeacher(teacher, rows_at_once=4), "two": LocalTeacher(plain_teacher, rows_at_once=4)}
    opened: list[str] = []

    def open_one(path: str) -> LocalTeacher:
        opened.append(path)
        return by_path[path]

    samples = [replace(sample, source=source) for sample, source in zip(mixed_samples(), "abca", strict=True)]
    routes = [("b", "two"), ("c", "two")]
    both = build_teacher("one", routes, sources="abca", open_one=open_one)
    assert isinstance(both, RoutedTeacher) and sorted(opened) == ["one", "two"]
    prompts = [student.encoder(sample) for sample in samples]
    found = student.engine(rows_at_once=8).generate(prompts, n=2, max_new_tokens=5, seed=1)
    scores = both.score(found).logprobs
    for row, rollout in zip(scores, found, strict=True):
        right = by_path["one" if rollout.prompt.sample.source == "a" else "two"]
        expected = right.score([rollout]).logprobs[0]
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-6, atol=2e-6)
    answers, _ = both.answer(samples, max_new_tokens=4, rows_at_once=4)
    assert answers[1] == plain_teacher.answer(samples[1:2], max_new_tokens=4, rows_at_once=1)[0][0]
    assert [[sample.id for sample in own] for _, own in parties(both, samples)] == [["none", "two"], ["one", "long"]]
    shared = with_shared_prompts(both, prompts)
    assert (
        isinstance(shared, RoutedTeacher) and vars(shared.routes["b"])["share_prompts"]
    )  # the same family as the student
    torch.testing.assert_close(shared.score(found).logprobs, scores, rtol=1e-6, atol=2e-6)
    with pytest.raises(TeacherError, match=r"teacher.routes names 'x', of which there is no row: there are 'a', 'b'"):
        build_teacher("one", [("x", "two")], sources="ab", open_one=open_one)
    assert build_teacher("one", [("a", "two")], sources="a", open_one=open_one) is by_path["two"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"routes": ("counts",)}, "teacher.routes is 'counts': allowed is SOURCE=PATH_OR_URL"),
        ({"routes": ("a=x", "a=y")}, "teacher.routes is two for 'a'"),
        ({"path": "ftp://x"}, "teacher.path is ftp://x: allowed is a directory"),
        ({"path": "http://me:secret@host:1"}, "teacher.path is http://host: allowed is an address alone"),
        ({"path": "http://host/?token=secret"}, "an address alone"),
        ({"timeout_seconds": 0}, "teacher.timeout_seconds is 0"),
        ({"retries": -1}, "teacher.retries is -1"),
        ({"path": "http://host", "align": "text"}, "teacher.align is text for the teacher server"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        TeacherConfig(**{"path": "zoo:teacher", **settings})
    assert "secret" not in str(error.value)


def test_a_run_with_the_server_is_the_run_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of every step and the answers graded before, up to the rounding of another batch."""
    from cli_help import SMALL, read_lines, small_pair, small_rows

    from reopold_vl.train import main

    monkeypatch.setenv("REOPOLD_VL_TEACHER_TOKEN", "geheim")
    pair = small_pair(tmp_path)
    flags = ["--data.path", str(small_rows(tmp_path / "data")), "--steps", "3", "--data.validation-rows", "3"]
    flags += ["--output-dir", str(tmp_path / "runs"), "--data.test-rows", "3", *SMALL]
    assert main([*pair, *flags, "--name", "local"]) == 0
    with served(load_tiny(Path(pair[3]), max_pixels=1280 * 28 * 28), token="geheim") as found:
        student = list(pair[:2])
        assert main([*student, "--teacher.path", found.url, *flags, "--name", "served"]) == 0
    local, far = (read_lines(tmp_path / "runs" / name / "metrics.jsonl") for name in ("local", "served"))
    assert len(local) == len(far) == 4
    for ours, theirs in zip(local, far, strict=True):
        timeless = [name for name in ours if not name.startswith(("seconds", "time"))]
        assert {k: theirs[k] for k in timeless} == pytest.approx({k: ours[k] for k in timeless}, rel=1e-4, abs=1e-5)
    for file in ("test_teacher.jsonl", "teacher_validation.jsonl"):
        answers = [(tmp_path / "runs" / name / file).read_text() for name in ("local", "served")]
        assert answers[0] == answers[1] != ""


def picture_of(size: tuple[int, int]) -> VisualSample:
    return VisualSample("picture", "How many?", "1", (picture(*size, 5),))


@pytest.mark.parametrize("size", [(16, 16), (10, 300), (640, 480), (28, 28), (333, 77)])
def test_pictures_of_every_shape(
    student: VisionLanguageModel, teacher: VisionLanguageModel, server: Served, size: tuple[int, int]
) -> None:
    near, far = LocalTeacher(teacher, rows_at_once=2), ask(server.url, student)
    found = student.engine(rows_at_once=2).generate([student.encoder(picture_of(size))], n=2, max_new_tokens=4, seed=0)
    torch.testing.assert_close(far.score(found).logprobs, near.score(found).logprobs, rtol=1e-6, atol=1e-6)
    assert far.view(picture_of(size)) == near.view(picture_of(size))


@pytest.mark.parametrize("kind", ["idefics3", "internvl", "gemma3"])  # tiles, and placeholders of other names
def test_families_with_tiles_are_served_alike(kind: str, tmp_path: Path) -> None:
    from tiny_families import load_family, save_family

    student, teacher = (load_family(save_family(tmp_path / name, kind, seed=seed)) for seed, name in enumerate("st"))
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    found = student.engine(rows_at_once=8).generate(prompts, n=2, max_new_tokens=4, seed=0)
    near = LocalTeacher(teacher, rows_at_once=8)
    with served(teacher) as server:
        far = ask(server.url, student)
        torch.testing.assert_close(far.score(found).logprobs, near.score(found).logprobs, rtol=1e-6, atol=2e-6)
        assert [far.view(sample) for sample in mixed_samples()] == [near.view(sample) for sample in mixed_samples()]
