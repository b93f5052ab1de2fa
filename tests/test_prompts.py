"""Ids and tensors against the processors' own path, and the rows that must not become prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import MAX_PIXELS, MIN_PIXELS, mixed_samples, picture

from reopold_vl.images import ImageError
from reopold_vl.models import VisionLanguageModel
from reopold_vl.prompts import PromptError, messages
from reopold_vl.types import Prompt, VisualSample


def chat(*content: Image.Image | str, system: str | None = None) -> list[dict[str, Any]]:
    """Messages in transformers' own format, with the images in them."""
    parts = [{"type": "text", "text": c} if isinstance(c, str) else {"type": "image", "image": c} for c in content]
    before = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*before, {"role": "user", "content": parts}]


def reference(vlm: VisionLanguageModel, conversation: list[dict[str, Any]]) -> Any:
    return vlm.processor.apply_chat_template(
        conversation, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


def assert_same(prompt: Prompt, expected: Any) -> None:
    assert prompt.ids.tolist() == expected["input_ids"][0].tolist()
    assert prompt.token_types.tolist() == expected["mm_token_type_ids"][0].tolist()
    assert ("pixel_values" in prompt.vision) == ("pixel_values" in expected)
    if prompt.vision:
        assert torch.equal(prompt.vision["image_grid_thw"], expected["image_grid_thw"])
        assert torch.equal(prompt.vision["pixel_values"], expected["pixel_values"])


def fitting(vlm: VisionLanguageModel, width: int, height: int, seed: int) -> Image.Image:
    """A picture of width x height visual tokens, which no resize changes: our path and transformers' are one."""
    return picture(width * vlm.encoder.factor, height * vlm.encoder.factor, seed)


def test_one_image_equals_the_chat_template_of_transformers(vlm: VisionLanguageModel) -> None:
    image = fitting(vlm, 2, 3, 1)
    prompt = vlm.encoder(VisualSample("a", "How many red squares?", images=(image,)))
    assert_same(prompt, reference(vlm, chat(image, "How many red squares?")))


def test_text_only_equals_the_chat_template_of_transformers(vlm: VisionLanguageModel) -> None:
    prompt = vlm.encoder(VisualSample("a", "the sum of four and four?"))
    assert_same(prompt, reference(vlm, chat("the sum of four and four?")))
    assert not prompt.vision and not prompt.token_types.any()


def test_several_images_and_a_system_turn(vlm: VisionLanguageModel) -> None:
    images = tuple(fitting(vlm, width, 2, width) for width in (2, 3, 4))
    sample = VisualSample("a", "How many?", images=images, system="answer: four")
    assert_same(vlm.encoder(sample), reference(vlm, chat(*images, "How many?", system="answer: four")))


def test_markers_say_where_the_images_stand(vlm: VisionLanguageModel) -> None:
    first, second = fitting(vlm, 2, 2, 1), fitting(vlm, 3, 2, 2)
    sample = VisualSample("a", "In <image> and in <image>, how many?", images=(first, second))
    prompt = vlm.encoder(sample)
    assert_same(prompt, reference(vlm, chat("In ", first, " and in ", second, ", how many?")))
    leading = vlm.encoder(replace(sample, question="<image><image>In and in, how many?"))
    assert_same(leading, reference(vlm, chat(first, second, "In and in, how many?")))
    assert leading.ids.tolist() != prompt.ids.tolist()


def test_messages_without_markers_put_images_first() -> None:
    sample = VisualSample("a", "Why?", images=("x.png", "y.png"), system="Be brief.")
    assert messages(sample) == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Why?"}]},
    ]


@pytest.mark.parametrize(("width", "height"), [(70, 90), (200, 130), (500, 333), (17, 300), (9, 9), (1000, 1000)])
def test_image_tokens_equal_the_grid_and_the_processors_own_count(
    vlm: VisionLanguageModel, width: int, height: int
) -> None:
    prompt = vlm.encoder(VisualSample("a", "How many?", images=(picture(width, height, 0),)))
    merge = vlm.processor.image_processor.merge_size
    (grid,) = prompt.vision["image_grid_thw"].tolist()
    tokens = grid[0] * grid[1] * grid[2] // merge**2
    assert int((prompt.ids == vlm.policy.model.config.image_token_id).sum()) == tokens
    assert int(prompt.token_types.sum()) == tokens and set(prompt.token_types.tolist()) == {0, 1}
    assert prompt.vision["pixel_values"].shape[0] == tokens * merge**2
    area = grid[1] * grid[2] * vlm.processor.image_processor.patch_size**2
    assert area <= MAX_PIXELS and (area >= MIN_PIXELS or min(width, height) < vlm.encoder.factor)


@pytest.mark.parametrize(("width", "height"), [(70, 90), (200, 130), (333, 500), (1000, 1000)])
def test_ids_of_images_of_any_size_equal_the_processors_own(vlm: VisionLanguageModel, width: int, height: int) -> None:
    """The processor resizes by itself here, in its own pixel budget, which is the same."""
    image = picture(width, height, 0)
    prompt = vlm.encoder(VisualSample("a", "How many?", images=(image,)))
    expected = reference(vlm, chat(image, "How many?"))
    assert prompt.ids.tolist() == expected["input_ids"][0].tolist()
    assert torch.equal(prompt.vision["image_grid_thw"], expected["image_grid_thw"])


def test_resized_pixels_are_nearly_the_processors_own(vlm: VisionLanguageModel) -> None:
    smooth = picture(5, 4, 0).resize((300, 260), Image.Resampling.BICUBIC)
    prompt = vlm.encoder(VisualSample("a", "How many?", images=(smooth,)))
    expected = reference(vlm, chat(smooth, "How many?"))
    assert float((prompt.vision["pixel_values"] - expected["pixel_values"]).abs().mean()) < 0.02


def test_the_pixel_budget_is_the_encoders_not_the_processors(vlm: VisionLanguageModel) -> None:
    """Smaller and larger than what the processor's own file says."""
    sample, token = VisualSample("a", "How many?", images=(picture(640, 480, 0),)), vlm.encoder.factor**2
    small = replace(vlm.encoder, max_pixels=4 * token)(sample)
    large = replace(vlm.encoder, max_pixels=3 * MAX_PIXELS)(sample)
    assert 1 <= int(small.token_types.sum()) <= 4
    assert MAX_PIXELS < int(large.token_types.sum()) * token <= 3 * MAX_PIXELS


@pytest.mark.parametrize(
    ("question", "images"), [("In <image>?", 0), ("In <image>?", 2), ("In <image> and <image>?", 1)]
)
def test_markers_and_images_must_agree(vlm: VisionLanguageModel, question: str, images: int) -> None:
    sample = VisualSample("row 7", question, images=(picture(56, 56, 0),) * images)
    markers = question.count("<image>")
    with pytest.raises(PromptError, match=f"sample row 7: {markers} <image> markers for {images} images"):
        vlm.encoder(sample)


@pytest.mark.parametrize(
    "token", ["<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|endoftext|>"]
)
@pytest.mark.parametrize("where", ["question", "system"])
def test_special_tokens_in_the_text_are_refused(vlm: VisionLanguageModel, token: str, where: str) -> None:
    sample = replace(VisualSample("row 7", "How many?"), **{where: f"How {token} many?"})
    with pytest.raises(PromptError) as error:
        vlm.encoder(sample)
    assert "sample row 7" in str(error.value) and token in str(error.value)


def test_a_prompt_that_is_too_long_is_refused(vlm: VisionLanguageModel) -> None:
    sample = VisualSample("row 7", "How many red squares?", images=(picture(100, 100, 0),))
    length = len(vlm.encoder(sample).ids)
    assert len(replace(vlm.encoder, max_prompt_tokens=length)(sample).ids) == length
    with pytest.raises(PromptError, match=f"row 7: the prompt has {length} tokens, allowed are {length - 1}"):
        replace(vlm.encoder, max_prompt_tokens=length - 1)(sample)


def test_encode_all_keeps_the_good_and_names_the_bad(vlm: VisionLanguageModel) -> None:
    good = mixed_samples()[:2]
    bad = [VisualSample("marker", "<image>"), VisualSample("file", "How?", images=("/nowhere/at/all.png",))]
    prompts, reasons = vlm.encoder.encode_all([bad[0], good[0], bad[1], good[1]])
    assert [prompt.sample for prompt in prompts] == good
    assert [reason.split(":")[0] for reason in reasons] == ["marker", "file"]
    with pytest.raises(ImageError, match=r"all\.png.*no such file"):
        vlm.encoder(bad[1])


def test_the_same_sample_gives_the_same_prompt(vlm: VisionLanguageModel) -> None:
    one, other = (vlm.encoder(mixed_samples()[2]) for _ in range(2))
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.vision["pixel_values"], other.vision["pixel_values"])


CHOICES = ("3/11", "8/11", "11/3")


@pytest.mark.parametrize(
    ("question", "choices", "shown"),
    [
        ("What part is blue?", CHOICES, "What part is blue?\nA. 3/11\nB. 8/11\nC. 11/3"),
        ("Blue: A. 3/11, B. 8/11 or C. 11/3?", CHOICES, "Blue: A. 3/11, B. 8/11 or C. 11/3?"),
        ("Which picture?", ("A", "B", "C"), "Which picture?"),
        ("What part is blue?", None, "What part is blue?"),
    ],
)
def test_choices_are_shown_unless_the_question_has_them(question: str, choices: tuple[str, ...], shown: str) -> None:
    sample = VisualSample(id="0", question=question, choices=choices)
    assert messages(sample)[-1]["content"][-1]["text"] == shown
    assert messages(sample, "Box it.")[-1]["content"][-1]["text"] == f"{shown}\nBox it."


def test_the_instruction_reaches_the_models(vlm: VisionLanguageModel) -> None:
    encoder = replace(vlm.encoder, instruction="the answer is in the picture")
    sample = VisualSample(id="0", question="How many red squares?")
    plain, with_it = (vlm.tokenizer.decode(each(sample).ids) for each in (vlm.encoder, encoder))
    assert with_it == plain.replace("squares?", "squares?\nthe answer is in the picture")
