"""Prompts and rollouts as padded tensors: prompts to the left, responses to the right, each image once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from reopold_vl.types import Prompt, Rollout

PAGE_LOCKED = {"cuda"}  # devices to which page-locked memory is copied while the CPU goes on


@dataclass(frozen=True)
class PromptBatch:
    """Unique prompts, padded on the left. `vision` concatenates the image tensors of all of them, in order.

    Tensors of images that are cut into different numbers of tiles are filled up with zeros, as processors do it. They
    stay in CPU memory: whoever encodes an image moves it. `host` is the batch as it was collated there.
    """

    ids: Int[Tensor, "prompts length"]
    mask: Bool[Tensor, "prompts length"]
    token_types: Int[Tensor, "prompts length"]
    vision: Mapping[str, Tensor]
    collated: PromptBatch | None = None

    @property
    def host(self) -> PromptBatch:
        return self.collated or self

    @property
    def even(self) -> bool:
        """Whether all prompts are of one length, so that nothing is padded."""
        return bool(self.host.mask.all())

    def to(self, device: torch.device) -> PromptBatch:
        ids, mask, token_types = (moved(each, device) for each in (self.ids, self.mask, self.token_types))
        return PromptBatch(ids, mask, token_types, self.vision, self.host)


@dataclass(frozen=True)
class TokenBatch:
    """Rollouts over unique prompts: row b answers prompt `rows[b]`; responses are padded on the right.

    `host` is the batch as it was collated, in CPU memory. `groups` are the rows whose answers are read together, behind
    prompts that are read once; () has each prompt read with its answer. None leaves it to the policy.
    """

    prompts: PromptBatch
    rows: Int[Tensor, " batch"]
    response_ids: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    groups: Sequence[Sequence[int]] | None = None
    collated: TokenBatch | None = None

    @property
    def host(self) -> TokenBatch:
        return self.collated or self

    def to(self, device: torch.device) -> TokenBatch:
        rows, response_ids, mask = (moved(each, device) for each in (self.rows, self.response_ids, self.mask))
        return TokenBatch(self.prompts.to(device), rows, response_ids, mask, self.groups, self.host)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On `device`; on its way to a GPU in page-locked memory, so that nobody waits for the copy.

    Of an expanded tensor all of it goes: page-locked memory is laid out like the tensor, and cannot be written twice.
    """
    if tensor.device.type == "cpu" and device.type in PAGE_LOCKED:
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def token_places(keep: Bool[Tensor, "batch time"], device: torch.device) -> Int[Tensor, " tokens"]:
    """Where `keep` is true, counted row by row, on `device`; made without waiting for it where `keep` is elsewhere."""
    return moved(keep.flatten().nonzero()[:, 0], device)


def collate_prompts(prompts: Sequence[Prompt], *, pad_id: int) -> PromptBatch:
    """Left-pad prompts to the longest of them; image tensors are concatenated."""
    length = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad_id)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    token_types = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt.ids)
        ids[row, start:] = prompt.ids
        mask[row, start:] = True
        token_types[row, start:] = prompt.token_types
    names = dict.fromkeys(name for prompt in prompts for name in prompt.vision)
    vision = {name: join([prompt.vision[name] for prompt in prompts if name in prompt.vision]) for name in names}
    return PromptBatch(ids, mask, token_types, vision)


def collate_rollouts(rollouts: Sequence[Rollout], *, pad_id: int) -> TokenBatch:
    """Right-pad responses to the longest; rollouts of one prompt (the same object) share its row and its images."""
    unique = {id(rollout.prompt): rollout.prompt for rollout in rollouts}
    position = {key: row for row, key in enumerate(unique)}
    return TokenBatch(
        prompts=collate_prompts(list(unique.values()), pad_id=pad_id),
        rows=torch.tensor([position[id(rollout.prompt)] for rollout in rollouts]),
        response_ids=pad_right([rollout.response_ids for rollout in rollouts], pad_id),
        mask=pad_right([torch.ones_like(rollout.response_ids, dtype=torch.bool) for rollout in rollouts], False),
    )


def join(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first dimension; the others are filled up with zeros to the largest of each."""
    sizes = [max(sides) for sides in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_filled_up(tensor, sizes) for tensor in tensors])


def _filled_up(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    missing = [size - side for size, side in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    return torch.nn.functional.pad(tensor, [amount for size in reversed(missing) for amount in (0, size)])


def pad_right(rows: Sequence[Tensor], value: float) -> Tensor:
    """[B, T] from B vectors of different lengths; [0, 0] of the value's kind from none."""
    if not rows:
        return torch.full((0, 0), value)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def prompt_groups(rollouts: Sequence[Rollout], rows_at_once: int) -> Iterator[slice]:
    """Slices of at most `rows_at_once` rollouts that part a prompt's rollouts only if these are more than that.

    An image is then encoded once per pass however the batch is cut.
    """
    start = end = 0
    for _, group in groupby(rollouts, key=lambda rollout: id(rollout.prompt)):
        size = len(list(group))
        if end > start and end + size - start > rows_at_once:
            yield slice(start, end)
            start = end
        end += size
        while end - start > rows_at_once:
            yield slice(start, start + rows_at_once)
            start += rows_at_once
    if end > start:
        yield slice(start, end)


def micro_batches(rollouts: Sequence[Rollout], rows_at_once: int) -> list[list[int]]:
    """Rows in as few pieces of at most `rows_at_once` as `prompt_groups` would need, evened out by tokens.

    A prompt's rollouts are parted only if they are more than that, so an image is encoded once per pass. Prompts of
    similar length share a piece, and the largest piece, in tokens with their padding, is as small as it can be. Rows
    are in order within a piece.
    """
    sizes: list[tuple[int, int, list[int]]] = []  # prompt tokens, longest answer, rows
    for _, group in groupby(range(len(rollouts)), key=lambda row: id(rollouts[row].prompt)):
        members = list(group)
        for start in range(0, len(members), rows_at_once):
            rows = members[start : start + rows_at_once]
            longest = max(len(rollouts[row].response_ids) for row in rows)
            sizes.append((len(rollouts[rows[0]].prompt.ids), longest, rows))
    sizes.sort(key=lambda each: each[:2])
    fewest = _cut(sizes, rows_at_once, most=None)
    low, high = 1, max((_padded(piece) for piece in fewest), default=1)
    found = fewest
    while low < high:
        middle = (low + high) // 2
        tried = _cut(sizes, rows_at_once, most=middle)
        if len(tried) <= len(fewest):
            found, high = tried, middle
        else:
            low = middle + 1
    return [sorted(row for *_, rows in piece for row in rows) for piece in found]


def _cut(
    sizes: Sequence[tuple[int, int, list[int]]], rows_at_once: int, *, most: int | None
) -> list[list[tuple[int, int, list[int]]]]:
    """Neighbours together while they are at most `rows_at_once` rows and `most` tokens (a prompt alone may be more)."""
    pieces: list[list[tuple[int, int, list[int]]]] = []
    for each in sizes:
        longer = [*(pieces[-1] if pieces else []), each]
        fits = sum(len(rows) for *_, rows in longer) <= rows_at_once and (most is None or _padded(longer) <= most)
        if pieces and fits:
            pieces[-1] = longer
        else:
            pieces.append([each])
    return pieces


def _padded(piece: Sequence[tuple[int, int, list[int]]]) -> int:
    """Tokens of a piece whose prompts are padded to the longest of them, each read once; answers are grouped later."""
    return len(piece) * max(prompt for prompt, *_ in piece) + sum(answer * len(rows) for _, answer, rows in piece)


PASS_TOKENS = 64  # what one more pass costs, in tokens: below that padding is cheaper


def saves_a_pass(*, answers: int, prompts: int, prompt_tokens: int, pass_tokens: int) -> bool:
    """Whether to read prompts once rather than with each answer saves more tokens than one more pass costs."""
    return (answers - prompts) * prompt_tokens > pass_tokens


def answer_groups(rollouts: Sequence[Rollout], pass_tokens: int) -> list[list[int]]:
    """`length_groups` of the answers; none where a pass costs more than to read each prompt with its answer."""
    prompts = {id(rollout.prompt): len(rollout.prompt.ids) for rollout in rollouts}
    longest = max(prompts.values(), default=0)
    if not saves_a_pass(answers=len(rollouts), prompts=len(prompts), prompt_tokens=longest, pass_tokens=pass_tokens):
        return []
    return length_groups([len(rollout.response_ids) for rollout in rollouts], pass_tokens)


def length_groups(lengths: Sequence[int], pass_tokens: int | None = None) -> list[list[int]]:
    """Rows in groups of similar length: the padding to each group's longest, and `pass_tokens` a group, are least.

    Longest first; rows of equal length in their order. None is PASS_TOKENS.
    """
    pass_tokens = PASS_TOKENS if pass_tokens is None else pass_tokens
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    ordered = torch.tensor([lengths[row] for row in order], dtype=torch.long)
    # best[i]: of the first i rows; a group from j to i costs its rows times the length of its first.
    best = torch.zeros(len(order) + 1, dtype=torch.long)
    start = [0] * (len(order) + 1)
    for stop in range(1, len(order) + 1):
        costs = best[:stop] + (stop - torch.arange(stop)) * ordered[:stop]
        start[stop] = int(costs.argmin())
        best[stop] = costs[start[stop]] + pass_tokens
    groups: list[list[int]] = []
    stop = len(order)
    while stop > 0:
        groups.insert(0, sorted(order[start[stop] : stop]))
        stop = start[stop]
    return groups
