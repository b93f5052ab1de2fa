"""From what a request holds to prompts of the server's own processor, and from tokens back to text."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import torch
from PIL import Image

from reopold_vl import __version__, families
from reopold_vl.models import VisionLanguageModel
from reopold_vl.prompts import PromptEncoder
from reopold_vl.serving.requests import Item, Limits, RequestError
from reopold_vl.serving.wire import API, SERVER, vocabulary_hash
from reopold_vl.types import Prompt, Rollout, VisualSample


class Desk:
    """The model's tokenizer and processor behind a lock: fast tokenizers cannot be used by two threads at once."""

    def __init__(self, model: VisionLanguageModel, limits: Limits, *, name: str) -> None:
        self.model, self.limits, self.name = model, limits, name
        self.encoder = replace(
            model.encoder, max_prompt_tokens=limits.tokens, allow_url=False, instruction="", min_pixels=1, max_pixels=1
        )
        self.placeholder = placeholder_of(self.encoder)
        self._lock = threading.Lock()
        self._vocabulary: dict[str, int] = model.tokenizer.get_vocab()
        self._size = len(model.tokenizer)

    def info(self) -> dict[str, Any]:
        """What a client compares with its own model before it trusts a score."""
        template = self.model.processor.chat_template or ""
        return {
            "server": SERVER,
            "api": API,
            "version": __version__,
            "model": self.name,
            "model_type": self.model.policy.model.config.model_type,
            "num_parameters": self.model.num_parameters,
            "dtype": str(self.model.policy.precision).removeprefix("torch."),
            "eos_ids": list(self.model.eos_ids),
            "vocabulary_size": self._size,
            "vocabulary_sha256": vocabulary_hash(self._vocabulary),
            "template_sha256": hashlib.sha256(str(template).encode()).hexdigest(),
            "image_factor": self.encoder.factor,
            "image_grid": families.FAMILIES[self.encoder.family].grid,
            "limits": asdict(self.limits),
        }

    def vocabulary(self) -> dict[str, int]:
        return self._vocabulary

    def prompt(self, item: Item, place: str) -> Prompt:
        """The prompt of one item with every placeholder expanded; raises RequestError."""
        try:
            with self._lock:
                return self._encode(item, place)
        except RequestError:
            raise
        except (ValueError, IndexError) as error:  # processors raise either for placeholders without a picture
            raise RequestError(f"{place}: {' '.join(str(error).split())}") from None

    def rollouts(self, item: Item, place: str) -> list[Rollout]:
        """The item's prompt with each of its responses, for scoring; raises RequestError."""
        for response in item.responses:
            self._known(response, place)
        prompt = self.prompt(item, place)
        longest = len(prompt.ids) + max(map(len, item.responses))
        if longest > self.limits.tokens:
            raise RequestError(f"{place} has {longest} tokens: allowed are {self.limits.tokens}", 413)
        unknown = [torch.zeros(len(row)) for row in item.responses]  # what the student thought of its tokens
        pairs = zip(item.responses, unknown, strict=True)
        return [Rollout(prompt, torch.tensor(row), none, none, "length") for row, none in pairs]

    def text(self, rollout: Rollout) -> str:
        with self._lock:
            return self.model.tokenizer.decode(rollout.response_ids, skip_special_tokens=True)

    def view(self, item: Item) -> dict[str, Any]:
        """How the model sees a sample."""
        prompt = self.prompt(item, "the body")
        assert item.sample is not None
        with self._lock:
            text = self.encoder.render(item.sample)
        return {"text": text, **self.facts(prompt)}

    def facts(self, prompt: Prompt) -> dict[str, Any]:
        """What a client can check of a prompt."""
        grid = prompt.vision.get("image_grid_thw")
        return {
            "prompt_tokens": len(prompt.ids),
            "image_tokens": int((prompt.token_types == 1).sum()),
            "image_sizes": [list(image.size) for image in prompt.sample.images],
            "image_grids": [] if grid is None else grid.tolist(),
        }

    def _encode(self, item: Item, place: str) -> Prompt:
        sample = item.sample or VisualSample(place, "", images=item.images)
        text = self.encoder.render(sample) if item.sample else self._spelled(item, place)
        # Within the client's own budget: a picture that it has fitted stays as it is.
        encoder = replace(self.encoder, min_pixels=item.budget[0], max_pixels=item.budget[1])
        fitted = replace(sample, images=tuple(encoder.images(sample)))
        return encoder.expand(fitted, text, fitted.images)

    def _spelled(self, item: Item, place: str) -> str:
        """The text that the item's ids spell, one placeholder an image."""
        assert item.token_ids is not None
        self._known(item.token_ids, place)
        self._count_images(item, place)
        tokenizer = self.model.tokenizer
        text = tokenizer.decode(list(item.token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) != item.token_ids:
            raise RequestError(f"{place}.prompt_token_ids: the tokenizer makes other ids of the text that they spell")
        return text

    def _count_images(self, item: Item, place: str) -> None:
        assert item.token_ids is not None
        wanted = item.token_ids.count(self.placeholder) if self.placeholder is not None else len(item.images)
        if wanted != len(item.images):
            raise RequestError(f"{place}: {wanted} image placeholders for {len(item.images)} images")

    def _known(self, ids: tuple[int, ...], place: str) -> None:
        if max(ids) >= self._size:
            raise RequestError(f"{place}: token id {max(ids)} is past the last one, {self._size - 1}")


def placeholder_of(encoder: PromptEncoder) -> int | None:
    """The token that stands for one image in a rendered prompt; None where the template writes no single token."""
    tokenizer = encoder.processor.tokenizer
    blank = VisualSample("", "?", images=(Image.new("RGB", (1, 1)),))
    seen, unseen = (
        Counter(tokenizer(encoder.render(sample), add_special_tokens=False)["input_ids"])
        for sample in (blank, replace(blank, images=()))
    )
    added = {encoder.image_token_id, *tokenizer.added_tokens_decoder}
    candidates = [token for token in (seen - unseen) if token in added]
    return encoder.image_token_id if encoder.image_token_id in candidates else next(iter(candidates), None)
