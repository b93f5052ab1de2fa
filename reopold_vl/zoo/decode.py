"""Batched greedy decoding and scoring, for build-time checks and the model card only (training has its own engine)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from reopold_vl.zoo.batches import grids, pixel_patches, prompt_text
from reopold_vl.zoo.task import Problem, final_answer

MAX_NEW_TOKENS = 72


@torch.no_grad()
def greedy_answers(
    model, tokenizer, questions: Sequence[str], images: Sequence[Image.Image] | None, batch_size: int = 128
) -> list[str]:
    """The greedy response to every question, decoded; `images` are 84x84, one per question, or None for text only."""
    responses = []
    suppressed = [model.config.image_token_id, model.config.video_token_id]
    for start in range(0, len(questions), batch_size):
        part = questions[start : start + batch_size]
        texts = [prompt_text(question, with_image=images is not None) for question in part]
        rows = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        vision = {}
        if images is not None:
            vision = {
                "pixel_values": pixel_patches(images[start : start + batch_size]),
                "image_grid_thw": grids(len(part)),
                "mm_token_type_ids": (rows.input_ids == model.config.image_token_id).int(),
            }
        made = model.generate(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            suppress_tokens=suppressed,
            **vision,
        )
        responses += tokenizer.batch_decode(made[:, rows.input_ids.shape[1] :], skip_special_tokens=True)
    return responses


def accuracy_by_type(problems: Sequence[Problem], responses: Sequence[str]) -> dict[str, float]:
    """Share of right final answers per question type, and "all"."""
    right: dict[str, list[bool]] = {}
    for item, response in zip(problems, responses, strict=True):
        hit = final_answer(response) == item.sample.answer
        right.setdefault(item.sample.source, []).append(hit)
        right.setdefault("all", []).append(hit)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}
