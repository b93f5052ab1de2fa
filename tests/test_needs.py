"""What objectives ask for beyond log-probs: degraded pictures, the start, verdicts, the teacher's own words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import load_tiny, mixed_samples, picture, plain_distribution, random_rollouts, save_tiny

from reopold_vl.config import ConfigError
from reopold_vl.degrade import degraded, pixelated
from reopold_vl.grading import grade_rollout
from reopold_vl.lora import add_adapter, base_alone
from reopold_vl.models import VisionLanguageModel
from reopold_vl.needs import Extras, require_possible
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.score import score, score_tokens
from reopold_vl.teacher_writes import begin_answers, write_answers
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import RoutedTeacher
from reopold_vl.teachers.spans import span_teacher
from reopold_vl.types import Rollout, ScoredBatch, VisualSample


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    student = save_tiny(root / "student", "qwen2_5_vl", seed=0)
    return student, save_tiny(root / "teacher", "qwen2_5_vl", seed=1, image_mean=0.4)


@pytest.fixture
def student(directories: tuple[Path, Path]) -> VisionLanguageModel:
    return load_tiny(directories[0])


@pytest.fixture(scope="module")
def teacher(directories: tuple[Path, Path]) -> LocalTeacher:
    return LocalTeacher(load_tiny(directories[1]), rows_at_once=4)


def rollouts_of(student: VisionLanguageModel) -> list[Rollout]:
    return random_rollouts(student, [student.encoder(sample) for sample in mixed_samples()], n=2, seed=3)


def filled(
    name: str, student: Any, teacher: Any, rollouts: list[Rollout], reference: Any = None, **settings: Any
) -> ScoredBatch:
    extras = Extras(OBJECTIVES[name](**settings), student, teacher, 3, reference)
    batch = score(rollouts, score_tokens(student, rollouts, rows_at_once=3), teacher.score(rollouts))
    return extras.fill(batch, rollouts)


def test_a_pixelated_picture_has_its_size_and_a_tenth_of_its_detail() -> None:
    image = picture(100, 60, 0)
    found, pixels = np.asarray(pixelated(image), dtype=float), np.asarray(image, dtype=float)
    assert found.shape == pixels.shape
    blocks = pixels.reshape(6, 10, 10, 10, 3).mean((1, 3))
    assert np.abs(found[::10, ::10] - blocks).max() <= 1
    assert (found == np.repeat(np.repeat(found[::10, ::10], 10, 0), 10, 1)).all()
    assert pixelated(Image.new("RGB", (3, 3), "red")).getcolors() == [(9, (255, 0, 0))]


@pytest.mark.parametrize("kind", ["pixelated", "removed"])
def test_what_a_degraded_sample_keeps(student: VisionLanguageModel, kind: Any) -> None:
    for sample in mixed_samples():
        whole, less = student.encoder(sample), student.encoder(degraded(sample, kind))
        assert (less.sample.id, less.sample.answer) == (sample.id, sample.answer)
        if kind == "removed":
            assert not less.vision and not less.token_types.any()
        else:
            assert torch.equal(less.ids, whole.ids)
            for name in whole.vision:
                assert torch.equal(less.vision[name], whole.vision[name]) == (name != "pixel_values")


@pytest.mark.parametrize(("name", "kind"), [("va_opd", "pixelated"), ("vgs", "removed")])
def test_blind_logprobs_are_those_of_plain_transformers_on_less_to_see(
    student: VisionLanguageModel, teacher: LocalTeacher, name: str, kind: Any
) -> None:
    rollouts = rollouts_of(student)
    batch = filled(name, student, teacher, rollouts)
    assert (batch.blind_student_logprobs is None) == (name == "va_opd")
    seen = {"blind_teacher_logprobs": teacher.model, "blind_student_logprobs": student}
    for field, model in seen.items():
        found = getattr(batch, field)
        if found is None:
            continue
        for row, rollout in enumerate(rollouts):
            less = replace(rollout, prompt=model.encoder(degraded(rollout.prompt.sample, kind)))
            with torch.no_grad():
                wanted = plain_distribution(model.policy.model, less).log_prob(rollout.response_ids)
            torch.testing.assert_close(found[row, : len(wanted)], wanted, rtol=1e-4, atol=1e-4)
    assert batch.blind_teacher_logprobs is not None
    changed = (batch.blind_teacher_logprobs - batch.teacher_logprobs).abs().amax(1)
    assert (changed > 1e-3).tolist() == [bool(rollout.prompt.vision) for rollout in rollouts]


def move(student: VisionLanguageModel) -> None:
    """Training, as far as the start can tell."""
    with torch.no_grad():
        for parameter in student.policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))


def test_the_reference_is_the_student_before_training(
    student: VisionLanguageModel, teacher: LocalTeacher, directories: tuple[Path, Path]
) -> None:
    rollouts = rollouts_of(student)
    before = score_tokens(student, rollouts, rows_at_once=3).logprobs
    move(student)
    batch = filled("exopd", student, teacher, rollouts, reference=load_tiny(directories[0]))
    assert batch.reference_logprobs is not None
    torch.testing.assert_close(batch.reference_logprobs, before)
    assert float((batch.old_logprobs - before).abs().max()) > 0.01


def test_with_an_adapter_the_reference_is_its_base(student: VisionLanguageModel, teacher: LocalTeacher) -> None:
    pytest.importorskip("peft")
    rollouts, model = rollouts_of(student), student.policy.model
    before = score_tokens(student, rollouts, rows_at_once=3).logprobs
    add_adapter(model, base="tiny", rank=2, alpha=4.0, dropout=0.0, targets=(), seed=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    move(student)
    batch = filled("exopd", student, teacher, rollouts)
    assert batch.reference_logprobs is not None
    torch.testing.assert_close(batch.reference_logprobs, before)
    assert float((batch.old_logprobs - before).abs().max()) > 0.01
    again = score_tokens(student, rollouts, rows_at_once=3).logprobs
    assert torch.equal(again, batch.old_logprobs)
    assert trained == [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with pytest.raises(KeyError), base_alone(model):
        raise KeyError
    assert torch.equal(score_tokens(student, rollouts, rows_at_once=3).logprobs, again)


def test_nothing_is_computed_that_is_not_named(student: VisionLanguageModel, teacher: LocalTeacher) -> None:
    rollouts = rollouts_of(student)
    batch = filled("reopold", student, teacher, rollouts)
    optional = [value for name, value in vars(batch).items() if name not in list(vars(batch))[:5]]
    assert optional == [None] * 6
    assert filled("vopd", student, teacher, rollouts).divergence is not None


def test_verdicts_and_groups(student: VisionLanguageModel, teacher: LocalTeacher) -> None:
    rollouts = rollouts_of(student)
    extras = Extras(OBJECTIVES["grpo"](), student, teacher, 3)
    batch = filled("grpo", student, teacher, rollouts)
    graded = extras.grade(batch, rollouts, [True, False] * 4)
    assert graded.groups is not None and graded.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert graded.correct is not None and graded.correct.tolist() == [1, 0] * 4
    assert extras.divergence is None and graded.divergence is None
    gated = Extras(OBJECTIVES["verifier_gate"](), student, teacher, 3).grade(batch, rollouts, [True] * 8)
    assert gated.groups is None and gated.correct is not None


def test_the_teacher_answers_and_the_students_logprobs_are_with_its_answers(
    student: VisionLanguageModel, teacher: LocalTeacher
) -> None:
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    asked = {"max_new_tokens": 6, "seed": 7, "keys": [3, 1, 4, 5], "rows_at_once": 8}
    found = write_answers(teacher, student, prompts, n=2, **asked)
    own = [teacher.model.encoder(sample) for sample in mixed_samples()]
    settings = {name: asked[name] for name in ("max_new_tokens", "seed", "keys")}
    wanted = teacher.model.engine(rows_at_once=8).generate(own, n=2, **settings)
    assert [rollout.response_ids.tolist() for rollout in found] == [rollout.response_ids.tolist() for rollout in wanted]
    assert [rollout.prompt for rollout in found] == [prompt for prompt in prompts for _ in range(2)]
    for rollout in found:
        with torch.no_grad():
            plain = plain_distribution(student.policy.model, rollout)
        torch.testing.assert_close(rollout.logprobs, plain.log_prob(rollout.response_ids), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rollout.entropy, plain.entropy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_teacher_begins_and_leaves_a_token_to_the_student(
    student: VisionLanguageModel, teacher: LocalTeacher, share: float
) -> None:
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    asked = {"max_new_tokens": 6, "seed": 7, "keys": [0, 1, 2, 3], "rows_at_once": 8}
    found = begin_answers(teacher, prompts, share, **asked)
    whole = write_answers(teacher, student, prompts, n=1, **asked)
    for prompt, plain, answer in zip(found, prompts, whole, strict=True):
        length = min(int(share * len(answer.response_ids)), len(answer.response_ids) - 1)
        assert prompt.begun == length and torch.equal(prompt.begun_ids, answer.response_ids[:length])
        assert torch.equal(prompt.ids, torch.cat([plain.ids, answer.response_ids[:length]]))
        assert len(prompt.token_types) == len(prompt.ids) and prompt.vision is plain.vision


def test_both_models_score_what_follows_a_beginning_as_plain_transformers_do(
    student: VisionLanguageModel, teacher: LocalTeacher
) -> None:
    """The teacher, whose pictures are normalised otherwise, puts the beginning behind its own prompt."""
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    begun = begin_answers(teacher, prompts, 0.6, max_new_tokens=6, seed=7, keys=[0, 1, 2, 3], rows_at_once=8)
    assert any(prompt.begun for prompt in begun)
    rollouts = student.engine(rows_at_once=8).generate(begun, n=2, max_new_tokens=4, seed=1)
    scored = teacher.score(rollouts).logprobs
    for row, rollout in enumerate(rollouts):
        own = teacher.model.encoder(rollout.prompt.sample)
        ids = torch.cat([rollout.prompt.begun_ids, rollout.response_ids])
        longer = Rollout(own, ids, torch.zeros(len(ids)), torch.zeros(len(ids)), "length")
        with torch.no_grad():
            ours = plain_distribution(student.policy.model, rollout).log_prob(rollout.response_ids)
            theirs = plain_distribution(teacher.model.policy.model, longer).log_prob(longer.response_ids)
        torch.testing.assert_close(rollout.logprobs, ours, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scored[row, : len(ours)], theirs[-len(ours) :], rtol=1e-4, atol=1e-4)


def test_grading_joins_the_beginning(student: VisionLanguageModel) -> None:
    def spelled(text: str) -> torch.Tensor:
        return torch.tensor(student.tokenizer.encode(text))

    prompt = student.encoder(VisualSample("one", "How many?", "42"))
    rollout = Rollout(prompt, spelled("2"), torch.zeros(1), torch.zeros(1), "stop")
    assert not grade_rollout(student, rollout).correct
    from reopold_vl.teachers.local import begun

    graded = grade_rollout(student, replace(rollout, prompt=begun(prompt, spelled("The answer is 4"))))
    assert graded.correct and graded.response == "The answer is 42"


def test_what_a_teacher_or_the_data_cannot_give_is_refused_before_the_run(
    student: VisionLanguageModel, teacher: LocalTeacher
) -> None:
    samples = mixed_samples()
    routed = RoutedTeacher(teacher, {"": teacher})
    spans = span_teacher(teacher, student)

    def ask(name: str, one: Any = teacher, rows: Any = samples, shard: bool = False, size: int = 1, **settings: Any):
        require_possible(OBJECTIVES[name](**settings), one, rows, shard_teacher=shard, processes=size)

    for name in OBJECTIVES:
        ask(name, size=2)
    for name in ("gkd", "topk_reverse_kl", "eopd", "aopd", "tropd", "vopd", "tip", "sft"):
        for one in (routed, spans):
            with pytest.raises(
                ConfigError, match=f"objective is {name}, and the teacher is .*: allowed is one teacher"
            ):
                ask(name, one)
        with pytest.raises(ConfigError, match=f"shard_teacher is True: allowed is False with objective {name}"):
            ask(name, shard=True)
    for name in ("reopold", "reverse_kl", "grpo", "iw_opd", "exopd"):
        for one in (routed, spans):
            ask(name, one, shard=True, size=2)
    for name in ("va_opd", "vgs"):
        ask(name, routed)
        with pytest.raises(ConfigError, match=f"teacher.align is text: allowed is tokens with objective {name}"):
            ask(name, spans)
    ask("tropd", prefix_steps=3)
    with pytest.raises(ConfigError, match=r"objective\.prefix_steps is set: allowed is None in 2 processes"):
        ask("tropd", prefix_steps=3, size=2)
    unknown = [replace(sample, answer=None) for sample in samples]
    for name in ("grpo", "verifier_mix", "verifier_gate"):
        with pytest.raises(ConfigError, match=f"objective is {name}: it needs rows with an answer"):
            ask(name, rows=unknown)
    with pytest.raises(ConfigError, match="objective is sft: it needs rows with an answer"):
        ask("sft", rows=unknown, only_correct=True)
    ask("sft", rows=unknown)
