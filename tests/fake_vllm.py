"""vLLM without a GPU: what its server and its `LLM` class do (source of version 0.33.0), over plain transformers.

Nothing here uses the package under test but its shim and its tiny models' files: images are decoded and resized by the
processor's own limits, placeholders are expanded here, tokens are scored by one plain forward pass. State that the real
engine keeps (sleeping memory, caches of the old weights) is kept here too, and misuse of it fails as it would there.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

NEGATIVE_INFINITY = -9999.0  # what the server writes for -inf


class Refused(Exception):
    """What the server answers with a status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeCore:
    """A model with its processor: expands placeholders, scores prompts, samples, and swaps its weights."""

    def __init__(self, path: Path | str, *, max_model_len: int = 4096, max_pixels: int | None = None) -> None:
        self.path = Path(path)
        self.processor: Any = AutoProcessor.from_pretrained(path)
        if max_pixels is not None:
            self.processor.image_processor.size["longest_edge"] = max_pixels
        self.model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
        self.max_model_len = max_model_len
        self.impossible: tuple[int, ...] = ()  # tokens to which the model gives probability 0
        self.lock = threading.Lock()  # the model keeps positions between calls
        self.scheduler_images: set[str] = set()
        self.worker_images: set[str] = set()
        self.prefixes_of_old_weights = False

    @property
    def placeholder(self) -> int:
        return self.model.config.image_token_id

    def expand(self, ids: Sequence[int], images: Sequence[Image.Image]) -> tuple[list[int], dict[str, torch.Tensor]]:
        """One placeholder an image becomes that image's tokens; images without a placeholder are refused."""
        if not images:
            return list(ids), {}
        if list(ids).count(self.placeholder) < len(images):
            raise Refused(400, f"Expected there to be {len(images)} prompt updates")
        vision = dict(self.processor.image_processor(images=list(images), return_tensors="pt"))
        counts = [int(grid.prod()) // self.processor.image_processor.merge_size**2 for grid in vision["image_grid_thw"]]
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * counts.pop(0) if token == self.placeholder and counts else [token]
        for image in images:  # the scheduler's and the worker's view of what is cached must agree
            key = hashlib.sha256(image.tobytes()).hexdigest()
            assert key not in self.scheduler_images or key in self.worker_images, "Encoder cache miss"
            self.scheduler_images.add(key)
            self.worker_images.add(key)
        return expanded, vision

    @torch.no_grad()
    def logits(self, ids: Sequence[int], vision: dict[str, torch.Tensor]) -> torch.Tensor:
        """Raw logits [tokens, vocabulary] of a sequence."""
        rows = torch.tensor([list(ids)])
        types = (rows == self.placeholder).long()
        with self.lock:
            output = self.model(input_ids=rows, attention_mask=torch.ones_like(rows), mm_token_type_ids=types, **vision)
        logits = output.logits[0].float()
        logits[:, list(self.impossible)] = -torch.inf
        return logits

    def require_room(self, ids: Sequence[int]) -> None:
        if len(ids) >= self.max_model_len:
            raise Refused(
                400,
                f"The decoder prompt (length {len(ids)}) plus the number of requested output tokens (at least 1) is "
                f"longer than the maximum model length of {self.max_model_len}.",
            )

    def prompt_logprobs(self, ids: Sequence[int], vision: dict[str, torch.Tensor]) -> list[dict[int, float] | None]:
        logprobs = self.logits(ids, vision).log_softmax(-1)
        scored = [{token: float(logprobs[i, token])} for i, token in enumerate(ids[1:])]
        return [None, *scored]

    def sample(self, ids: list[int], vision: dict[str, torch.Tensor], params: Any, seed: int | None) -> dict[str, Any]:
        """One answer: token ids, raw log-probs of the sampled tokens, reason. EOS is among the ids."""
        ends = set(params.stop_token_ids or [])
        if not params.ignore_eos:
            ends.add(self.model.generation_config.eos_token_id)
        rows = torch.tensor([ids])
        settings = {} if params.temperature == 0 else {"temperature": params.temperature, "top_k": 0}
        if params.logit_bias:
            settings["sequence_bias"] = [[[int(token)], float(bias)] for token, bias in params.logit_bias.items()]
        with self.lock, torch.random.fork_rng():
            torch.manual_seed(seed or 0)
            made = self.model.generate(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                mm_token_type_ids=(rows == self.placeholder).long(),
                **vision,
                do_sample=params.temperature > 0,
                max_new_tokens=min(params.max_tokens, self.max_model_len - len(ids)),
                eos_token_id=sorted(ends) or None,
                output_logits=True,
                return_dict_in_generate=True,
                **settings,
            )
        tokens = made.sequences[0, len(ids) :].tolist()
        raw = torch.cat(made.logits).float().log_softmax(-1)
        logprobs = [float(row[token]) for row, token in zip(raw, tokens, strict=True)]
        reason = "stop" if tokens[-1] in ends else "length"
        return {"token_ids": tokens, "logprobs": logprobs, "finish_reason": reason}

    def drop_weights(self) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()

    def reload_weights(
        self, weights_iterator: Iterable[tuple[str, torch.Tensor]] | None = None, weights_path: str | None = None
    ) -> None:
        """`GPUModelRunner.reload_weights`: checkpoint names, from memory or from a directory's safetensors."""
        if weights_iterator is None:
            weights = load_file(Path(weights_path or self.path) / "model.safetensors")
        else:
            weights = {name: tensor.detach().clone() for name, tensor in weights_iterator}
        with safe_open(self.path / "model.safetensors", "pt") as checkpoint:
            assert set(weights) == set(checkpoint.keys()), set(weights) ^ set(checkpoint.keys())
        config = self.model.config
        generation = self.model.generation_config
        self.model = type(self.model).from_pretrained(None, config=config, state_dict=weights).eval()
        self.model.generation_config = generation
        self.worker_images.clear()
        self.prefixes_of_old_weights = True

    def reset_encoder_cache(self) -> None:
        self.scheduler_images.clear()
        self.worker_images.clear()

    def reset_prefix_cache(self) -> bool:
        self.prefixes_of_old_weights = False
        return True


def decode_address(url: str) -> Image.Image:
    assert url.startswith("data:image/png;base64,"), url[:40]
    return Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
