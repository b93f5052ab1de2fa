"""Padding, shared prompts and the cutting of a batch: nothing lost, nothing doubled, images never parted."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from reopold_vl.collate import collate_prompts, collate_rollouts, join, pad_right, prompt_groups
from reopold_vl.types import Prompt, Rollout, VisualSample

PAD = 99


def prompt(length: int, *, images: int = 0, start: int = 0) -> Prompt:
    """Ids start, start + 1, ...; the first token of each image is a placeholder; pixels name the prompt's start."""
    types = torch.zeros(length, dtype=torch.long)
    types[:images] = 1
    vision = {}
    if images:
        vision = {
            "pixel_values": torch.full((4 * images, 2), float(start)),
            "image_grid_thw": torch.tensor([[1, 2, 2]] * images),
        }
    return Prompt(VisualSample(str(start), "?"), torch.arange(start, start + length), types, vision)


def rollout(of: Prompt, length: int) -> Rollout:
    ids = torch.arange(50, 50 + length)
    return Rollout(of, ids, torch.zeros(length), torch.zeros(length), "stop")


def test_prompts_are_padded_on_the_left() -> None:
    batch = collate_prompts([prompt(2, start=10), prompt(4, images=1, start=20)], pad_id=PAD)
    assert batch.ids.tolist() == [[PAD, PAD, 10, 11], [20, 21, 22, 23]]
    assert batch.mask.tolist() == [[False, False, True, True], [True] * 4]
    assert batch.token_types.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_image_tensors_are_concatenated_in_order_and_never_padded() -> None:
    batch = collate_prompts([prompt(3, images=2, start=1), prompt(5), prompt(3, images=1, start=2)], pad_id=PAD)
    assert batch.vision["pixel_values"][:, 0].tolist() == [1.0] * 8 + [2.0] * 4
    assert batch.vision["image_grid_thw"].shape == (3, 3)


def test_images_of_fewer_tiles_are_filled_up_with_zeros_behind_their_own() -> None:
    first, second = torch.ones(1, 2, 3, 4), torch.full((2, 3, 3, 2), 5.0)
    joined = join([first, second])
    assert joined.shape == (3, 3, 3, 4)
    assert torch.equal(joined[:1, :2], first) and not joined[0, 2].any()
    assert torch.equal(joined[1:, :, :, :2], second) and not joined[1:, :, :, 2:].any()
    assert join([torch.tensor([2]), torch.tensor([1, 1])]).tolist() == [2, 1, 1]


def test_a_batch_without_images_has_no_image_tensors() -> None:
    assert not collate_prompts([prompt(3), prompt(2)], pad_id=PAD).vision


def test_responses_are_padded_on_the_right_and_share_their_prompt() -> None:
    first, second = prompt(3, images=1, start=1), prompt(2, start=7)
    batch = collate_rollouts([rollout(first, 1), rollout(first, 3), rollout(second, 2), rollout(first, 2)], pad_id=PAD)
    assert batch.rows.tolist() == [0, 0, 1, 0]
    assert batch.prompts.ids.tolist() == [[1, 2, 3], [PAD, 7, 8]]
    assert batch.prompts.vision["pixel_values"].shape[0] == 4  # once, though three rows ask for it
    assert batch.response_ids.tolist() == [[50, PAD, PAD], [50, 51, 52], [50, 51, PAD], [50, 51, PAD]]
    assert batch.mask.sum(1).tolist() == [1, 3, 2, 2]
    assert bool((batch.mask == (batch.response_ids != PAD)).all())


def test_equal_prompts_that_are_two_objects_are_two_rows() -> None:
    batch = collate_rollouts([rollout(prompt(2), 1), rollout(prompt(2), 1)], pad_id=PAD)
    assert batch.rows.tolist() == [0, 1]


def test_pad_right() -> None:
    rows = [torch.tensor([1.0]), torch.tensor([2.0, 3.0])]
    assert pad_right(rows, -1.0).tolist() == [[1.0, -1.0], [2.0, 3.0]]
    assert pad_right([torch.tensor([True]), torch.tensor([True, True])], False).dtype == torch.bool


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 5, 7, 100])
def test_groups_cover_everything_once_and_part_only_what_is_too_large(rows_at_once: int) -> None:
    sizes = [3, 1, 1, 4, 2]
    rollouts = [rollout(of, 1) for size in sizes for of in [prompt(2)] for _ in range(size)]
    pieces = list(prompt_groups(rollouts, rows_at_once))
    assert [index for piece in pieces for index in range(piece.start, piece.stop)] == list(range(len(rollouts)))
    assert all(0 < piece.stop - piece.start <= rows_at_once for piece in pieces)
    for prompts, size in zip(dict.fromkeys(id(each.prompt) for each in rollouts), sizes, strict=True):
        parts = sum(any(id(each.prompt) == prompts for each in rollouts[piece]) for piece in pieces)
        assert parts == (1 if size <= rows_at_once else -(-size // rows_at_once))
    # No two neighbours would have fitted together.
    for left, right in pairwise(pieces):
        first = sum(each.prompt is rollouts[right.start].prompt for each in rollouts[right])
        assert left.stop - left.start + first > rows_at_once


def test_no_rollouts_no_groups() -> None:
    assert list(prompt_groups([], 4)) == []
