"""VisualSample -> Prompt: the one preprocessing that student, teacher, engines, evaluation and demo share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image, Resampling

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)
from reopold_vl import families
from reopold_vl.images import fit_image, load_image
from reopold_vl.types import IMAGE_MARKER, Prompt, VisualSample

TEXT_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")  # the rest is of the images

EXPRESSION_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


class PromptError(ValueError):
    """A sample that cannot become a prompt; the message names the sample and the reason."""


@dataclass(frozen=True)
class PromptEncoder:
    """Encode samples with one processor, one pixel budget and one chat template.

    `min_pixels` and `max_pixels` bound each image's area after resizing. In families with a patch grid both sides
    become multiples of the patch size times the merge size; in the others images above `max_pixels` are made smaller,
    and the processor cuts its tiles within the same budget, of which a tile is the least. `image_token_id` is the
    model's placeholder. Two models whose processors agree (see `reopold_vl.check`) can share the prompts.
    """

    processor: Any
    family: str
    image_token_id: int
    min_pixels: int
    max_pixels: int
    max_prompt_tokens: int = 4096
    allow_url: bool = False
    instruction: str = ""

    @property
    def factor(self) -> int:
        """Pixels per side of one visual token; rounded in families with tiles."""
        return families.factor(self.processor, self.family)

    def images(self, sample: VisualSample) -> list[Image]:
        """The sample's images as RGB, resized into the pixel budget."""
        loaded = [load_image(image, allow_url=self.allow_url) for image in sample.images]
        if not families.FAMILIES[self.family].grid:
            return [shrink_image(image, self.max_pixels) for image in loaded]
        fit = {"factor": self.factor, "min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return [fit_image(image, **fit) for image in loaded]

    def __call__(self, sample: VisualSample) -> Prompt:
        """Chat template, image tensors and expanded ids of one sample; raises PromptError, or ImageError."""
        return self.expand(sample, self.render(sample), self.images(sample))

    def render(self, sample: VisualSample) -> str:
        """The chat template's text of a sample, with one placeholder an image; raises PromptError."""
        special = self.special_token_in(sample)
        if special is not None:
            raise PromptError(f"sample {sample.id}: the question contains the special token {special!r}")
        chat = messages(sample, self.instruction)
        try:
            return render_chat(self.processor, chat, add_generation_prompt=True)
        except PromptError as error:
            raise PromptError(f"sample {sample.id}: {error}") from None

    def expand(self, sample: VisualSample, text: str, images: Sequence[Image]) -> Prompt:
        """The prompt of a rendered text and fitted pictures: each placeholder becomes its picture's tokens."""
        nested = families.FAMILIES[self.family].nested_images
        settings = families.image_settings(self.processor, self.family, self.max_pixels)
        encoded = self.processor(
            text=[text],
            images=([list(images)] if nested else list(images)) if images else None,
            images_kwargs=settings,
            return_tensors="pt",
        )
        ids = encoded["input_ids"][0]
        if len(ids) > self.max_prompt_tokens:
            raise PromptError(
                f"sample {sample.id}: the prompt has {len(ids)} tokens, allowed are {self.max_prompt_tokens} "
                "(raise --max-prompt-tokens or lower --images.max-pixels)"
            )
        vision = {name: tensor for name, tensor in encoded.items() if name not in TEXT_INPUTS}
        return Prompt(sample=sample, ids=ids, token_types=(ids == self.image_token_id).long(), vision=vision)

    def special_token_in(self, sample: VisualSample) -> str | None:
        """The first special token written out in the sample's text, which would forge turns or images."""
        shown = question_text(sample, self.instruction)
        # Our own marker is some tokenizers' placeholder; the template puts it where an image stands, and only there.
        text = "\n".join([*shown.split(IMAGE_MARKER), sample.system or ""])
        tokenizer = self.processor.tokenizer
        special = {**dict.fromkeys(tokenizer.all_special_tokens), tokenizer.decode([self.image_token_id]): None}
        return next((token for token in special if token in text), None)

    def encode_all(self, samples: Sequence[VisualSample]) -> tuple[list[Prompt], list[str]]:
        """Prompts of the samples that can be encoded, and one reason for each that cannot."""
        prompts: list[Prompt] = []
        reasons: list[str] = []
        for sample in samples:
            try:
                prompts.append(self(sample))
            except ValueError as error:
                reasons.append(f"{sample.id}: {error}")
        return prompts, reasons


def shrink_image(image: Image, max_pixels: int) -> Image:
    """The image, made smaller in its own shape where it has more than `max_pixels`; never less than a pixel a side."""
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    width, height = (max(1, math.floor(side * scale)) for side in image.size)
    return image.resize((width, height), Resampling.BICUBIC)


def render_chat(processor: Any, chat: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
    """The text that the processor's chat template makes of a conversation; raises PromptError where it cannot.

    A template is a program that the model's directory brings: besides jinja's own errors there are those of its
    expressions.
    """
    from jinja2 import TemplateError

    try:
        return processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt)
    except (TemplateError, *EXPRESSION_ERRORS) as error:
        reason = " ".join(str(error).split())[:200] or "no reason given"
        raise PromptError(f"the chat template cannot render it ({type(error).__name__}: {reason})") from error


def messages(sample: VisualSample, instruction: str = "") -> list[dict[str, Any]]:
    """The chat messages of a sample: optional system turn, one user turn with images where the markers stand.

    Without markers the images come first. Choices that the question does not spell out follow it, one a line behind
    their letters; `instruction` comes last. Raises PromptError when markers and images differ in number.
    """
    parts = question_text(sample, instruction).split(IMAGE_MARKER)
    markers = len(parts) - 1
    if markers == 0:
        content: list[dict[str, str]] = [{"type": "image"} for _ in sample.images]
        content.append({"type": "text", "text": parts[0]})
    elif markers == len(sample.images):
        content = []
        for index, part in enumerate(parts):
            content += [{"type": "image"}] if index else []
            content += [{"type": "text", "text": part}] if part.strip() else []
    else:
        raise PromptError(f"sample {sample.id}: {markers} <image> markers for {len(sample.images)} images")
    system = [{"role": "system", "content": [{"type": "text", "text": sample.system}]}] if sample.system else []
    return [*system, {"role": "user", "content": content}]


def question_text(sample: VisualSample, instruction: str = "") -> str:
    """The user's turn as text: the question, then choices that it does not spell out, then `instruction`."""
    choices = sample.choices or ()
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    spelled_out = all(choice in sample.question for choice in choices) or list(choices) == letters
    listed = [] if spelled_out else [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True)]
    return "\n".join([sample.question, *listed, *([instruction] if instruction else [])])
