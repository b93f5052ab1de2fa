"""The pair check: what it lets pass works, and each kind of miswiring is refused by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MAX_PIXELS, TEXTS, load_tiny, mixed_samples, plain_distribution, save_tiny
from torch import nn

from reopold_vl import check
from reopold_vl.check import PairReport
from reopold_vl.models import ModelError, VisionLanguageModel, load_model
from reopold_vl.score import sampled_tokens, score, score_tokens
from reopold_vl.teachers.local import LocalTeacher, as_seen_by
from reopold_vl.types import Rollout, VisualSample

Make = Callable[..., VisionLanguageModel]


@pytest.fixture
def make(family: str, tmp_path: Path) -> Make:
    """A teacher of other weights and size, in the student's family unless told; settings are those of `tiny_vlm`."""

    def teacher(kind: str = family, max_pixels: int = MAX_PIXELS, **settings: Any) -> VisionLanguageModel:
        path = save_tiny(tmp_path / "teacher", kind, **{"seed": 1, "hidden": 48, **settings})
        return load_tiny(path, max_pixels=max_pixels)

    return teacher


def check_pair(
    student: VisionLanguageModel, teacher: VisionLanguageModel, samples: list[VisualSample], *, by_text: bool = False
) -> PairReport:
    return check.check_pair(student, LocalTeacher(teacher, rows_at_once=8), samples, by_text=by_text)


def assert_scores_are_plain(teacher: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    """What training would take for the teacher's log-probs equals plain transformers."""
    stats = score_tokens(teacher, rollouts, rows_at_once=3)
    with torch.no_grad():
        for row, rollout in zip(stats.logprobs, rollouts, strict=True):
            expected = plain_distribution(teacher.policy.model, rollout).log_prob(rollout.response_ids)
            torch.testing.assert_close(row[: len(expected)], expected, rtol=0, atol=1e-5)


def effect(report: PairReport, name: str) -> float:
    """The first number that the check of that name measured."""
    (measured,) = (result.measured for result in report.results if result.name == name)
    return float(re.findall(r"(?:by|=) ([\d.e+-]+)", measured)[0])


def answers(student: VisionLanguageModel) -> list[Rollout]:
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    return student.engine(rows_at_once=8).generate(prompts, n=2, max_new_tokens=5, seed=0)


def test_a_good_pair_passes_and_is_measured(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    report = check_pair(vlm, teacher, mixed_samples())
    assert report.shared_prompts
    assert [result.status for result in report.results] == ["ok"] * 10
    assert effect(report, "self-teacher") < 1e-5 and effect(report, "engine") < 1e-5
    assert effect(report, "student sees") > 1e-3 and effect(report, "teacher sees") > 1e-3
    assert_scores_are_plain(teacher, answers(vlm))
    assert "image tensors identical" in str(report) and "\n" not in str(report)


def test_a_head_that_caps_its_logits_is_refused(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    plain = teacher.policy.model.forward

    def capped(**inputs: Any) -> Any:
        output = plain(**inputs)
        if output.logits is not None:
            output.logits = torch.tanh(output.logits / 2) * 2
        return output

    teacher.policy.model.forward = capped
    with pytest.raises(ModelError, match="head: the teacher's logits differ from what its head projects"):
        check_pair(vlm, teacher, mixed_samples())


def test_a_teacher_that_is_the_student_gives_zero_rewards(vlm: VisionLanguageModel) -> None:
    rollouts = answers(vlm)
    batch = score(rollouts, sampled_tokens(rollouts), score_tokens(vlm, rollouts, rows_at_once=3))
    assert float(batch.rewards.abs().max()) < 1e-5
    assert batch.mask.sum(1).tolist() == [len(rollout.response_ids) for rollout in rollouts]


def test_rewards_are_teacher_minus_student_and_zero_without_a_token(vlm: VisionLanguageModel, make: Make) -> None:
    rollouts, teacher = answers(vlm), make()
    rollouts[0] = replace(
        rollouts[0],
        response_ids=rollouts[0].response_ids[:2],
        logprobs=rollouts[0].logprobs[:2],
        entropy=rollouts[0].entropy[:2],
    )
    batch = score(rollouts, sampled_tokens(rollouts), score_tokens(teacher, rollouts, rows_at_once=3))
    with torch.no_grad():
        expected = plain_distribution(teacher.policy.model, rollouts[0]).log_prob(rollouts[0].response_ids)
    torch.testing.assert_close(batch.rewards[0, :2], expected - rollouts[0].logprobs, rtol=0, atol=2e-5)
    assert not batch.rewards[~batch.mask].any() and not batch.mask[0, 2:].any()
    assert float(batch.rewards[batch.mask].abs().max()) > 0.05


def test_another_tokenizer_is_refused_naming_the_first_id(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make(texts=("zzzz zzz zz qqq", *TEXTS))
    ours, theirs = (model.tokenizer.convert_ids_to_tokens(range(256, 300)) for model in (vlm, teacher))
    first = next(index for index, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    with pytest.raises(ModelError, match=f"tokenizers differ: id {256 + first} is ") as error:
        check_pair(vlm, teacher, mixed_samples())
    assert repr(ours[first]) in str(error.value) and repr(theirs[first]) in str(error.value)


def test_a_longer_tokenizer_is_refused_naming_the_id_that_only_one_has(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    size = len(teacher.tokenizer)
    teacher.tokenizer.add_tokens(["<think>"])
    with pytest.raises(ModelError, match=f"tokenizers differ: id {size} is None .* and '<think>' for the teacher"):
        check_pair(vlm, teacher, mixed_samples())


def test_other_end_tokens_are_refused(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    teacher.policy.model.generation_config.eos_token_id = [vlm.eos_ids[0], vlm.pad_id]
    with pytest.raises(ModelError, match=r"end tokens differ: .*im_end.* student and .*endoftext.* teacher"):
        check_pair(vlm, teacher, mixed_samples())


def test_another_chat_template_is_refused_where_it_differs(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    teacher.processor.chat_template = vlm.processor.chat_template.replace("assistant", "helper")
    with pytest.raises(ModelError, match=r"chat templates differ at character \d+: 'assistant.* 'helper"):
        check_pair(vlm, teacher, mixed_samples())


def test_another_pixel_limit_is_refused_naming_the_grids(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make(max_pixels=6 * 32 * 32)
    with pytest.raises(
        ModelError,
        match=r"image grids differ: \d+ tokens from pixels .* for the student and \d+ tokens from .* for the teacher",
    ):
        check_pair(vlm, teacher, mixed_samples())


def test_padded_vocabularies_are_allowed(family: str, tmp_path: Path, make: Make) -> None:
    student = load_tiny(save_tiny(tmp_path / "student", family, seed=0, padded_vocab=32))
    teacher = make(padded_vocab=64)
    sizes = {model.policy.model.get_output_embeddings().weight.shape[0] for model in (student, teacher)}
    assert sizes == {len(student.tokenizer) + 32, len(student.tokenizer) + 64}
    assert check_pair(student, teacher, mixed_samples()).shared_prompts
    assert set(range(len(student.tokenizer), len(student.tokenizer) + 32)) <= set(student.banned_ids)
    assert_scores_are_plain(teacher, answers(student))


class Blind(nn.Module):
    """A vision tower that gives zeros of the right shape."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.tower, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.tower(*args, **kwargs)
        output.pooler_output = torch.zeros_like(output.pooler_output)
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [torch.zeros_like(layer) for layer in output.deepstack_features]
        return output


def test_a_teacher_that_does_not_see_is_refused(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    teacher.policy.model.base_model.visual = Blind(teacher.policy.model.base_model.visual)
    with pytest.raises(
        ModelError,
        match="teacher sees: the teacher does not see the image: other pixels, same log-probs; its image input",
    ):
        check_pair(vlm, teacher, mixed_samples())


def test_a_teacher_that_gives_nan_is_refused(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    with torch.no_grad():
        teacher.policy.model.base_model.language_model.norm.weight[0] = torch.nan
    for samples in (mixed_samples(), [mixed_samples()[1]]):
        with pytest.raises(ModelError, match="the teacher gives NaN"):
            check_pair(vlm, teacher, samples)


def test_a_student_whose_sampling_and_scoring_disagree_is_refused(
    fresh_vlm: VisionLanguageModel, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft cap in the head's forward that the tiled head would not know."""
    fresh_vlm.policy.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits.tanh())
    with pytest.raises(ModelError, match="scoring disagrees with sampling by"):
        check_pair(fresh_vlm, make(), mixed_samples())


def test_a_student_that_scores_nan_is_refused(fresh_vlm: VisionLanguageModel, make: Make) -> None:
    """Wherever among the rows the NaN stands: Python's max would drop it behind a number."""
    plain = fresh_vlm.policy.forward

    def forward(batch: Any, keep: torch.Tensor) -> Any:
        stats = plain(batch, keep)
        logprobs = stats.logprobs.clone()
        logprobs[-1, 0] = torch.nan
        return stats._replace(logprobs=logprobs)

    object.__setattr__(fresh_vlm.policy, "forward", forward)
    with pytest.raises(ModelError, match="log-probs are NaN"):
        check_pair(fresh_vlm, make(), mixed_samples())


def test_another_normalisation_is_encoded_apart(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make(image_mean=0.4)
    report = check_pair(vlm, teacher, mixed_samples())
    assert not report.shared_prompts and "encoded apart" in str(report)
    rollouts = answers(vlm)
    seen = as_seen_by(teacher, rollouts)
    assert_scores_are_plain(teacher, seen)
    assert [each.response_ids.tolist() for each in seen] == [each.response_ids.tolist() for each in rollouts]
    assert len({id(each.prompt) for each in seen}) == 4  # each prompt encoded once, and shared by its answers
    assert not torch.equal(seen[0].prompt.vision["pixel_values"], rollouts[0].prompt.vision["pixel_values"])
    as_is = score_tokens(teacher, rollouts, rows_at_once=8).logprobs
    assert float((as_is - score_tokens(teacher, seen, rows_at_once=8).logprobs).abs().max()) > 1e-4


def test_a_teacher_of_the_other_family_looks_by_itself(vlm: VisionLanguageModel, family: str, make: Make) -> None:
    """Patches of 14 against 16 pixels: other grids, other numbers of image tokens, the same answer tokens."""
    teacher = make({"qwen2_5_vl": "qwen3_vl", "qwen3_vl": "qwen2_5_vl"}[family])
    assert teacher.encoder.factor != vlm.encoder.factor
    assert not check_pair(vlm, teacher, mixed_samples()).shared_prompts
    assert_scores_are_plain(teacher, as_seen_by(teacher, answers(vlm)))


def test_text_only_samples_pass_without_a_look(vlm: VisionLanguageModel, make: Make) -> None:
    report = check_pair(vlm, make(), [mixed_samples()[1]])
    assert report.shared_prompts
    assert [result.name for result in report.results if result.status == "skip"] == [
        "image tokens",
        "student sees",
        "teacher sees",
    ]
    assert "not checked: teacher sees (the rows tried have no images)" in str(report)


def test_the_check_changes_neither_model(vlm: VisionLanguageModel, make: Make) -> None:
    teacher = make()
    before = copy.deepcopy(teacher.policy.state_dict())
    check_pair(vlm, teacher, mixed_samples())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.policy.state_dict().items())
    assert not any(parameter.grad is not None for parameter in teacher.policy.parameters())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("zoo:pupil", "embedded models are zoo:student and zoo:teacher"),
        ("/no/such/directory", "no such directory"),
        ("./nothing/here", "no such directory"),
    ],
)
def test_a_path_that_is_no_model_is_one_clear_line(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load_model(path, min_pixels=1024, max_pixels=4096)
    assert path in str(error.value) and "\n" not in str(error.value)


def test_directories_that_hold_no_model_say_so(tmp_path: Path) -> None:
    def load() -> None:
        load_model(str(tmp_path), min_pixels=1024, max_pixels=4096)

    with pytest.raises(ModelError, match=r"holds no model \(config\.json is missing\)"):
        load()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        load()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError) as error:
        load()
    assert "\n" not in str(error.value)


def test_saved_models_load_again_and_answer_the_same(vlm: VisionLanguageModel, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    again = load_tiny(tmp_path)
    one, other = answers(vlm), answers(again)
    assert all(torch.equal(a.response_ids, b.response_ids) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(a.logprobs, b.logprobs) for a, b in zip(one, other, strict=True))
