"""Does the answer come from the picture? The same tokens scored with the picture blurred, and with none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from demo.contenders import Arena, Role
from demo.credit import finite
from demo.errors import DemoError
from demo.tokens import token_texts

if TYPE_CHECKING:
    from PIL.Image import Image

    from reopold_vl.types import Rollout

# Of the longer side: shapes and letters are gone, the colours of large areas stay.
BLUR_RADIUS = 0.12


@dataclass(frozen=True)
class Sight:
    """Log-probabilities (nats) of one answer's tokens with the picture, with it blurred, and without it.

    `answer` are the positions of the tokens that spell the final answer; empty where none was recognised.
    """

    role: Role
    tokens: tuple[str, ...]
    seen: tuple[float, ...]
    blurred: tuple[float, ...]
    removed: tuple[float, ...]
    answer: tuple[int, ...]

    def drops(self, without: str) -> tuple[float, ...]:
        """How many nats each token loses when the picture is "blurred" or "removed"; negative where it gains."""
        return tuple(a - b for a, b in zip(self.seen, getattr(self, without), strict=True))

    def answer_probability(self, condition: str) -> float | None:
        """Probability of the final answer's tokens, after all that was written before them."""
        if not self.answer:
            return None
        return math.exp(min(0.0, sum(getattr(self, condition)[index] for index in self.answer)))


def sight_of(arena: Arena, role: Role, rollout: Rollout) -> Sight:
    """Score the answer of the model in `role` again with less to see. Raises DemoError without a picture."""
    from reopold_vl.degrade import without_images
    from reopold_vl.images import load_image

    sample = rollout.prompt.sample
    if not sample.images:
        raise DemoError("there is no picture to blur or to remove: give one and ask again")
    contender = arena[role]
    model = contender.model
    blurry = replace(sample, images=tuple(blur(load_image(image)) for image in sample.images))
    blind = without_images(sample)
    with arena.alone(contender.device):
        seen, blurred, removed = (
            finite(contender.score([replace(rollout, prompt=model.encoder(variant))])[0])
            for variant in (sample, blurry, blind)
        )
    tokens = token_texts(model.tokenizer, rollout.response_ids.tolist())
    return Sight(role, tokens, seen, blurred, removed, answer_tokens(tokens, sample.choices))


def blur(image: Image) -> Image:
    """The picture out of focus: a Gaussian of 12 % of its longer side."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS * max(image.size)))


def answer_tokens(tokens: tuple[str, ...], choices: tuple[str, ...] | None = None) -> tuple[int, ...]:
    """Positions of the tokens that spell the final answer where it stands last."""
    from reopold_vl.answers import extract_answer

    text = "".join(tokens)
    answer = extract_answer(text, choices)
    start = text.rfind(answer) if answer else -1
    if answer is None or start < 0:
        return ()
    found, place = [], 0
    for index, token in enumerate(tokens):
        if place < start + len(answer) and place + len(token) > start and token:
            found.append(index)
        place += len(token)
    return tuple(found)


def as_json(sight: Sight) -> dict[str, Any]:
    """Plain JSON, one entry a token, and the final answer's probability under the three conditions."""
    return {
        "model": sight.role,
        "answer_probability": {name: sight.answer_probability(name) for name in ("seen", "blurred", "removed")},
        "tokens": [
            {"token": token, "seen": seen, "blurred": blurred, "removed": removed, "answer": index in sight.answer}
            for index, (token, seen, blurred, removed) in enumerate(
                zip(sight.tokens, sight.seen, sight.blurred, sight.removed, strict=True)
            )
        ],
    }
