"""Batches for supervised training, decoding and probing: the same ids and pixels as the processor makes, but faster.

Every image here is 84x84, so all prompts share the vision block and its rotary positions, and patches can be cut with
one reshape. A test compares both with the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reopold_vl.zoo.render import SIDE

PATCH, MERGE, FRAMES = 14, 2, 2
VISUAL_TOKENS = SIDE * SIDE
PATCHES = VISUAL_TOKENS * MERGE * MERGE
GRID_THW = (1, SIDE * MERGE, SIDE * MERGE)


def pixel_patches(images: Sequence[Image.Image]) -> Tensor:
    """Images of 84x84 -> [36 * images, 1176], ordered like Qwen's processor: merged cell by cell, frames repeated."""
    pixels = np.stack([np.asarray(image) for image in images]).astype(np.float32) / 127.5 - 1.0
    cut = pixels.reshape(len(images), SIDE, MERGE, PATCH, SIDE, MERGE, PATCH, 3)
    cut = cut.transpose(0, 1, 4, 2, 5, 7, 3, 6)  # image, row, column, patch row, patch column, colour, y, x
    cut = np.repeat(cut[:, :, :, :, :, :, None], FRAMES, axis=6)
    return torch.from_numpy(np.ascontiguousarray(cut).reshape(len(images) * PATCHES, 3 * FRAMES * PATCH * PATCH))


def grids(images: int) -> Tensor:
    """The image sizes in patches, [images, 3]."""
    return torch.tensor([GRID_THW] * images)


def prompt_text(question: str, with_image: bool = True) -> str:
    """What the chat template makes of one user turn, with the image placeholder expanded."""
    image = f"<|vision_start|>{'<|image_pad|>' * VISUAL_TOKENS}<|vision_end|>" if with_image else ""
    return f"<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n"


def positions(model, ids: Tensor) -> Tensor:
    """Rotary positions [3, 1, length] of a right-padded row that begins with one 84x84 image."""
    image = ids[:1] == model.config.image_token_id
    length = ids.shape[1]
    if not image.any():
        return torch.arange(length).expand(3, 1, length)
    found, _ = model.model.get_rope_index(ids[:1], image_grid_thw=grids(1), mm_token_type_ids=image.int())
    return found


@dataclass(frozen=True)
class SupervisedBatch:
    """`ids` [B, L] right-padded; `targets` [B, L] is the next id on response positions and -100 elsewhere."""

    ids: Tensor
    targets: Tensor
    pixels: Tensor


def supervised_batch(tokenizer, rows: Sequence[tuple[Image.Image, str, str]]) -> SupervisedBatch:
    """Rows of (image, question, response) -> ids and targets; EOS is the last target of a row."""
    prompts = tokenizer([prompt_text(question) for _, question, _ in rows]).input_ids
    responses = tokenizer([response + tokenizer.eos_token for _, _, response in rows]).input_ids
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    targets = torch.full((len(rows), longest), -100)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response)
        ids[i, :end] = torch.tensor(prompt + response)
        targets[i, len(prompt) - 1 : end - 1] = ids[i, len(prompt) : end]
    return SupervisedBatch(ids[:, :-1], targets[:, :-1], pixel_patches([image for image, _, _ in rows]))
