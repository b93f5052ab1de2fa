"""What a request may hold: every field is checked before anything is computed, and the first wrong one is named."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from reopold_vl.images import ImageError, image_size, load_image
from reopold_vl.serving.wire import PNG
from reopold_vl.types import VisualSample


class RequestError(ValueError):
    """A request that is refused; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for."""

    body_bytes: int = 64 * 2**20
    """Of the JSON body."""
    items: int = 256
    """Prompts."""
    rows: int = 1024
    """Answers to score, of all prompts together."""
    tokens: int = 16384
    """Prompt with expanded images and one answer."""
    images: int = 16
    """Of one prompt."""
    image_pixels: int = 1280 * 28 * 28
    """Of one picture."""
    new_tokens: int = 4096
    """Of one generated answer."""
    top_logprobs: int = 32
    """Alternatives at each token."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}: allowed is 1 or more")


@dataclass(frozen=True)
class Item:
    """One prompt: either ids with one placeholder an image, or a sample; the images; the answers to score."""

    images: tuple[Image.Image, ...]
    token_ids: tuple[int, ...] | None = None
    sample: VisualSample | None = None
    responses: tuple[tuple[int, ...], ...] = ()
    budget: tuple[int, int] = (1, 1)
    """The least and the most pixels of a picture."""


@dataclass(frozen=True)
class ScoreRequest:
    items: tuple[Item, ...]
    top_logprobs: int


@dataclass(frozen=True)
class GenerateRequest:
    items: tuple[Item, ...]
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stream: bool


def parse_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; raises RequestError for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise RequestError("the body is not a JSON object")
    return value


def parse_score(value: Mapping[str, Any], limits: Limits) -> ScoreRequest:
    """A request of /v1/score; raises RequestError naming the item and the field."""
    _known(value, {"items", "top_logprobs"}, "")
    items = tuple(_item(item, f"items[{i}]", limits, scored=True) for i, item in enumerate(_items(value, limits)))
    rows = sum(len(item.responses) for item in items)
    if rows > limits.rows:
        raise RequestError(f"items hold {rows} responses: allowed are {limits.rows} a request", 413)
    return ScoreRequest(items, _whole(value, "top_logprobs", 0, limits.top_logprobs, default=0))


def parse_generate(value: Mapping[str, Any], limits: Limits) -> GenerateRequest:
    """A request of /v1/generate; raises RequestError naming the item and the field."""
    _known(value, {"items", "max_new_tokens", "temperature", "top_p", "seed", "stream"}, "")
    items = tuple(_item(item, f"items[{i}]", limits, scored=False) for i, item in enumerate(_items(value, limits)))
    stream = value.get("stream", False)
    if not isinstance(stream, bool):
        raise RequestError("stream: allowed are true and false")
    if stream and len(items) != 1:
        raise RequestError(f"items has {len(items)} entries: allowed is 1 with stream")
    return GenerateRequest(
        items,
        _whole(value, "max_new_tokens", 1, limits.new_tokens),
        _number(value, "temperature", 0.0, 10.0, default=0.0),
        _number(value, "top_p", 1e-6, 1.0, default=1.0),
        _whole(value, "seed", 0, 2**63 - 1, default=0),
        stream,
    )


def parse_prompt(value: Mapping[str, Any], limits: Limits) -> Item:
    """A request of /v1/prompt: one sample; raises RequestError."""
    item = _item(value, "the body", limits, scored=False)
    if item.sample is None:
        raise RequestError("the body has no question")
    return item


def _items(value: Mapping[str, Any], limits: Limits) -> list[Any]:
    items = value.get("items")
    if not isinstance(items, list) or not items:
        raise RequestError("items: allowed is a list with an entry for each prompt")
    if len(items) > limits.items:
        raise RequestError(f"items has {len(items)} entries: allowed are {limits.items} a request", 413)
    return items


def _item(value: Any, place: str, limits: Limits, *, scored: bool) -> Item:
    if not isinstance(value, dict):
        raise RequestError(f"{place}: allowed is an object")
    sample_fields = set() if scored else {"question", "choices", "system"}
    names = {"prompt_token_ids", "images", "min_pixels", "max_pixels", *sample_fields}
    _known(value, names | ({"responses"} if scored else set()), place)
    smallest = _whole(value, "min_pixels", 1, limits.image_pixels, default=1)
    budget = smallest, _whole(value, "max_pixels", smallest, limits.image_pixels, default=limits.image_pixels)
    images = tuple(_image(text, f"{place}.images[{i}]", limits) for i, text in enumerate(_images(value, place, limits)))
    if "question" in value and "prompt_token_ids" not in value:
        return Item(images, sample=_sample(value, place, images, limits), budget=budget)
    ids = _ids(value.get("prompt_token_ids"), f"{place}.prompt_token_ids", limits)
    if not scored:
        return Item(images, token_ids=ids, budget=budget)
    responses = value.get("responses")
    if not isinstance(responses, list) or not responses:
        raise RequestError(f"{place}.responses: allowed is a list of lists of token ids")
    if len(responses) > limits.rows:
        raise RequestError(f"{place} holds {len(responses)} responses: allowed are {limits.rows} a request", 413)
    parsed = tuple(_ids(row, f"{place}.responses[{i}]", limits) for i, row in enumerate(responses))
    return Item(images, token_ids=ids, responses=parsed, budget=budget)


def _sample(value: Mapping[str, Any], place: str, images: tuple[Image.Image, ...], limits: Limits) -> VisualSample:
    choices = value.get("choices")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(text, str) for text in choices)):
        raise RequestError(f"{place}.choices: allowed is a list of texts")
    for name in ("question", "system"):
        if not isinstance(value.get(name, ""), str | None):
            raise RequestError(f"{place}.{name}: allowed is text")
    texts = [value["question"] or "", value.get("system") or "", *(choices or ())]
    if any("\ud800" <= char <= "\udfff" for text in texts for char in text):
        raise RequestError(f"{place}: half of a surrogate pair is no text")
    length = sum(map(len, texts))
    if length > 32 * limits.tokens:
        raise RequestError(f"{place} has {length} characters: that is more than {limits.tokens} tokens", 413)
    return VisualSample(
        place, value["question"] or "", None, images, tuple(choices) if choices else None, "", value.get("system")
    )


def _images(value: Mapping[str, Any], place: str, limits: Limits) -> list[Any]:
    images = value.get("images", [])
    if not isinstance(images, list):
        raise RequestError(f"{place}.images: allowed is a list of base64 texts")
    if len(images) > limits.images:
        raise RequestError(f"{place}.images has {len(images)} entries: allowed are {limits.images}", 413)
    return images


def _image(text: Any, place: str, limits: Limits) -> Image.Image:
    if not isinstance(text, str):
        raise RequestError(f"{place}: allowed is the base64 of a PNG")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{place}: it is not base64") from None
    if not data.startswith(PNG):
        raise RequestError(f"{place}: it is not a PNG")
    try:
        width, height = image_size(data)  # from the header: nothing large is decoded
        if width * height > limits.image_pixels:
            raise RequestError(f"{place}: {width} x {height} pixels, allowed are {limits.image_pixels}", 413)
        return load_image(data)
    except ImageError as error:
        raise RequestError(f"{place}: {str(error).partition(': ')[2] or error}") from None


def _ids(value: Any, place: str, limits: Limits) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise RequestError(f"{place}: allowed is a list of token ids")
    if len(value) > limits.tokens:
        raise RequestError(f"{place} has {len(value)} tokens: allowed are {limits.tokens}", 413)
    if not all(type(token) is int and token >= 0 for token in value):
        raise RequestError(f"{place}: allowed are whole numbers from 0")
    return tuple(value)


def _whole(value: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    number = value.get(name, default)
    if type(number) is not int or not low <= number <= high:
        raise RequestError(f"{name} is {number!r:.40}: allowed is {low} to {high}")
    return number


def _number(value: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    number = value.get(name, default)
    if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
        raise RequestError(f"{name} is {number!r:.40}: allowed is {low} to {high}")
    return float(number)


def _known(value: Mapping[str, Any], names: set[str], place: str) -> None:
    unknown = sorted(set(value) - names)
    if unknown:
        raise RequestError(f"{place or 'the body'} has {unknown[0]!r:.40}: allowed are {', '.join(sorted(names))}")
