"""Rewards from a teacher with another tokenizer: exact where only ids differ, brute force where spellings do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import read_lines, small_rows
from PIL import ImageOps
from tiny import (
    SPECIAL_TOKENS,
    TEXTS,
    load_tiny,
    mixed_samples,
    plain_distribution,
    save_tiny,
    tiny_processor,
    tiny_vlm,
)
from transformers import AutoModelForImageTextToText, Qwen2Tokenizer

from reopold_vl.config import ConfigError, TeacherConfig
from reopold_vl.metrics import unscored_metrics
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives import Reopold
from reopold_vl.score import sampled_tokens, score
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import RoutedTeacher
from reopold_vl.teachers.spans import SpanTeacher, span_teacher
from reopold_vl.train import main
from reopold_vl.types import Rollout

OTHER_TEXTS = ("zzzz the answer question sum digits", "how how many red blue squares there in picture are")
IDS_IN_CONFIG = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def answers(student: VisionLanguageModel, *, max_new_tokens: int = 6) -> list[Rollout]:
    """Sampled ones, and two written ones: one with words, one with special tokens and a character cut in two."""
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    rollouts = student.engine(rows_at_once=8).generate(prompts, n=2, max_new_tokens=max_new_tokens, seed=0)
    texts = ("how many red squares: the sum is four<|im_end|>", "answer <|im_start|><|vision_pad|> naïve 你<|im_end|>")
    for prompt, text in zip(prompts, texts, strict=False):
        ids = torch.tensor(student.tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = torch.cat([ids[:-2], ids[-1:]]) if "你" in text else ids
        probabilities = -torch.rand(len(ids), generator=torch.Generator().manual_seed(len(ids)))
        rollouts.append(Rollout(prompt, ids, probabilities, probabilities.abs(), "stop"))
    return rollouts


def renumbered(family: str, path: Path) -> Path:
    """The tiny model of seed 1 with the same tokens under other ids, ordinary and special ones."""
    model, processor = tiny_vlm(family, seed=1, hidden=48)
    old = processor.tokenizer
    backend = json.loads(old.backend_tokenizer.to_str())["model"]
    names = sorted(backend["vocab"], key=backend["vocab"].__getitem__)
    shuffled = [names[index] for index in torch.randperm(len(names), generator=torch.Generator().manual_seed(0))]
    merges: Any = [tuple(pair) for pair in backend["merges"]]
    new = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(shuffled)},
        merges=merges,
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(reversed(SPECIAL_TOKENS)),
    )
    new.padding_side = "left"
    order = [old.convert_tokens_to_ids(new.convert_ids_to_tokens(index)) for index in range(len(new))]
    assert sorted(order) == list(range(len(new))) != order
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows.copy_(rows[order].clone())  # and with it the head, which is tied
    for name in IDS_IN_CONFIG:
        setattr(model.config, name, order.index(getattr(model.config, name)))
    model.generation_config.eos_token_id = new.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = new.convert_tokens_to_ids("<|endoftext|>")
    model.save_pretrained(path)
    tiny_processor(family, new).save_pretrained(path)
    return path


def test_the_same_tokens_under_other_ids_give_the_same_rewards(
    vlm: VisionLanguageModel, family: str, tmp_path: Path
) -> None:
    plain = LocalTeacher(load_tiny(save_tiny(tmp_path / "plain", family, seed=1, hidden=48)), 3)
    other = load_tiny(renumbered(family, tmp_path / "other"))
    assert other.tokenizer.get_vocab() != vlm.tokenizer.get_vocab() and other.eos_ids == vlm.eos_ids[:1]
    rollouts = answers(vlm)
    student = sampled_tokens(rollouts)
    by_tokens = score(rollouts, student, plain.score(rollouts))
    teacher = span_teacher(LocalTeacher(other, 3), vlm)
    by_text = score(rollouts, student, teacher.score(rollouts))
    assert teacher.translate.same_tokens
    assert torch.equal(by_text.mask, by_tokens.mask)
    torch.testing.assert_close(by_text.rewards, by_tokens.rewards, rtol=0, atol=1e-5)
    assert float(by_tokens.rewards.abs().max()) > 0.5
    # And the very same model: a span of one token adds nothing, not even rounding.
    itself = span_teacher(plain, vlm)
    assert torch.equal(itself.score(rollouts).logprobs, plain.score(rollouts).logprobs)


@pytest.fixture
def teacher(vlm: VisionLanguageModel, family: str, tmp_path: Path) -> SpanTeacher:
    """Other weights, other merges, and the other family: other pictures and templates as well."""
    other = {"qwen2_5_vl": "qwen3_vl", "qwen3_vl": "qwen2_5_vl"}[family]
    directory = save_tiny(tmp_path / "teacher", other, seed=1, hidden=48, texts=(*OTHER_TEXTS, *TEXTS))
    return span_teacher(LocalTeacher(load_tiny(directory), 3), vlm)


def brute_force(teacher: VisionLanguageModel, student: Any, rollout: Rollout, ids: list[int]) -> list[float]:
    """R of the span of each student token of an answer that ends, by the text of every prefix of both sequences."""
    unknown = torch.zeros(len(ids))
    own = Rollout(teacher.encoder(rollout.prompt.sample), torch.tensor(ids), unknown, unknown, "stop")
    with torch.no_grad():
        theirs = plain_distribution(teacher.policy.model, own).log_prob(own.response_ids).tolist()
    ours, mine = rollout.logprobs.tolist(), rollout.response_ids.tolist()

    def prefixes(tokenizer: Any, tokens: list[int]) -> list[str]:
        return [tokenizer.decode(tokens[:count]) for count in range(len(tokens) + 1)]

    left, right = prefixes(student, mine), prefixes(teacher.tokenizer, ids)
    rewards: list[float] = []
    start = (0, 0)
    for count in range(1, len(mine) + 1):
        if left[count] in right and "\ufffd" not in left[count]:
            end = (count, right.index(left[count]))
            value = sum(theirs[start[1] : end[1]]) - sum(ours[start[0] : end[0]])
            rewards += [value] * (end[0] - start[0])
            start = end
    return rewards


def test_span_rewards_against_brute_force(vlm: VisionLanguageModel, teacher: SpanTeacher) -> None:
    rollouts = answers(vlm)
    scores = teacher.score(rollouts)
    batch = score(rollouts, sampled_tokens(rollouts), scores)
    written = rollouts[8]
    ids = teacher.translate(written.response_ids.tolist(), cut_off=False).ids
    assert len(ids) != len(written.response_ids)
    expected = brute_force(teacher.model, vlm.tokenizer, written, ids)
    assert len(expected) == len(written.response_ids)
    torch.testing.assert_close(batch.rewards[8, : len(expected)], torch.tensor(expected), rtol=0, atol=1e-4)
    assert scores.spans is not None and scores.spans[8].max() + 1 < len(expected)  # some spans have several tokens


def test_the_invariants_of_a_scored_batch_hold(vlm: VisionLanguageModel, teacher: SpanTeacher) -> None:
    rollouts = answers(vlm)
    batch = score(rollouts, sampled_tokens(rollouts), teacher.score(rollouts))
    assert torch.equal(batch.rewards, torch.where(batch.mask, batch.teacher_logprobs - batch.old_logprobs, 0.0))
    for row, rollout in enumerate(rollouts):
        inside = batch.mask[row, : len(rollout.response_ids)]
        assert not batch.mask[row, len(rollout.response_ids) :].any()
        assert inside.all() if rollout.finish_reason == "stop" else not inside[-1]
    assert not batch.rewards[~batch.mask].any()
    signal = Reopold(mixture=0.3, switch_step=0)(batch, step=1)
    assert not signal.mask[~batch.mask].any()


def test_answers_without_any_span_are_left_out(vlm: VisionLanguageModel, teacher: SpanTeacher) -> None:
    """Cut off after one token, alone and beside others."""
    short = answers(vlm, max_new_tokens=1)[:2]
    assert {rollout.finish_reason for rollout in short} == {"length"}
    alone = score(short, sampled_tokens(short), teacher.score(short))
    assert not alone.mask.any() and not alone.rewards.any()
    both = [*short, *answers(vlm)]
    batch = score(both, sampled_tokens(both), teacher.score(both))
    assert not batch.mask[:2].any() and batch.mask[2:].any() and bool(batch.rewards.isfinite().all())


def test_the_teacher_sees_the_picture(vlm: VisionLanguageModel, teacher: SpanTeacher) -> None:
    rollouts = answers(vlm)
    samples = mixed_samples()
    inverted = [replace(sample, images=tuple(map(ImageOps.invert, sample.images))) for sample in samples]
    changed = {sample.id: vlm.encoder(sample) for sample in inverted}
    others = [replace(rollout, prompt=changed[rollout.prompt.sample.id]) for rollout in rollouts]
    moved = (teacher.score(rollouts).logprobs - teacher.score(others).logprobs).abs().amax(1)
    has_image = torch.tensor([bool(rollout.prompt.sample.images) for rollout in rollouts])
    assert bool((moved[has_image] > 1e-3).any()) and not moved[~has_image].any()
    assert not teacher.same_prompt(rollouts[0].prompt)


def test_teachers_of_both_kinds_are_routed(vlm: VisionLanguageModel, teacher: SpanTeacher) -> None:
    rollouts = answers(vlm)
    sourced = {one.id: vlm.encoder(replace(one, source=one.id)) for one in mixed_samples()}
    rollouts = [replace(rollout, prompt=sourced[rollout.prompt.sample.id]) for rollout in rollouts]
    both = RoutedTeacher(LocalTeacher(vlm, 3), {"one": teacher})
    student, scores = sampled_tokens(rollouts), both.score(rollouts)
    batch = score(rollouts, student, scores)
    for row, rollout in enumerate(rollouts):
        own = teacher if rollout.prompt.sample.id == "one" else both.other
        alone = score([rollout], sampled_tokens([rollout]), own.score([rollout]))
        length = len(rollout.response_ids)
        assert torch.equal(batch.mask[row, :length], alone.mask[0]) and not batch.mask[row, length:].any()
        torch.testing.assert_close(batch.rewards[row, :length], alone.rewards[0], rtol=0, atol=1e-4)


def test_a_step_counts_tokens_without_a_span(vlm: VisionLanguageModel, teacher: SpanTeacher) -> None:
    rollouts = answers(vlm)
    batch = score(rollouts, sampled_tokens(rollouts), teacher.score(rollouts))
    lengths = sum(len(rollout.response_ids) for rollout in rollouts)
    found = unscored_metrics(rollouts, batch)["teacher/unscored"]
    assert 0 < found < 1 and found == pytest.approx(1 - int(batch.mask.sum()) / lengths)
    plain = score(rollouts, sampled_tokens(rollouts), LocalTeacher(vlm, 3).score(rollouts))
    assert unscored_metrics(rollouts, plain) == {}


def trained(root: Path, name: str, *flags: str) -> list[dict[str, float]]:
    """The metrics of two steps of three prompts with three answers."""
    common = ["--data.path", str(root / "rows.jsonl"), "--data.validation-rows", "0", "--data.test-rows", "0"]
    common += ["--steps", "2", "--prompts-per-step", "3", "--rollout.n", "3", "--threads", "1", "--optim.lr", "0.001"]
    common += ["--rollout.max-new-tokens", "8", "--output-dir", str(root), "--name", name, *flags]
    assert main(["--student.path", str(root / "student"), *common]) == 0
    return read_lines(root / name / "metrics.jsonl")[1:]


def test_training_by_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A teacher of another family and tokenizer; one whose ids alone differ; and the same runs by tokens."""
    small_rows(tmp_path)
    save_tiny(tmp_path / "student", "qwen2_5_vl", seed=0)
    save_tiny(tmp_path / "plain", "qwen2_5_vl", seed=1, hidden=48)
    save_tiny(tmp_path / "foreign", "qwen3_vl", seed=1, hidden=48, texts=(*OTHER_TEXTS, *TEXTS))
    renumbered("qwen2_5_vl", tmp_path / "renumbered")

    by_text = trained(tmp_path, "text", "--teacher.path", str(tmp_path / "foreign"), "--teacher.align", "text")
    assert all(record["optim/grad_norm"] > 0 and record["reward/nan"] == 0 for record in by_text)
    assert all(0 < record["teacher/unscored"] < 0.6 for record in by_text)
    student = AutoModelForImageTextToText.from_pretrained(tmp_path / "text" / "student")
    before = AutoModelForImageTextToText.from_pretrained(tmp_path / "student")
    moved = [not torch.equal(a, b) for a, b in zip(student.parameters(), before.parameters(), strict=True)]
    assert any(moved)

    plain = trained(tmp_path, "tokens", "--teacher.path", str(tmp_path / "plain"))
    same = trained(tmp_path, "same", "--teacher.path", str(tmp_path / "renumbered"), "--teacher.align", "text")
    for one, other in zip(plain, same, strict=True):
        for name in ("reward/mean", "reward/p01", "loss", "optim/grad_norm", "student/entropy", "mask/kept"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name
        assert "teacher/unscored" not in other

    capsys.readouterr()
    assert main(["--student.path", str(tmp_path / "student"), "--teacher.path", str(tmp_path / "foreign")]) != 0
    assert "--teacher.align text" in capsys.readouterr().err


def test_a_server_cannot_align_by_text() -> None:
    with pytest.raises(
        ConfigError, match=r"teacher.align is text for the teacher server http://host:1: allowed is tok"
    ):
        TeacherConfig("http://host:1", align="text")
    with pytest.raises(ConfigError, match=r"teacher.align is text for the teacher server https://host/b"):
        TeacherConfig("zoo:teacher", align="text", routes=("a=https://host/b",))
    assert TeacherConfig("zoo:teacher", align="text").align == "text"
