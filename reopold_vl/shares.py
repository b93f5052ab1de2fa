"""A step's answers, shared out over processes and put together again.

Each process asks, scores and trains on its own prompts. What is global by nature is computed on the whole batch, which
every process has: no objective and no metric needs to know that there are several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from reopold_vl import distributed
from reopold_vl.collate import pad_right
from reopold_vl.prefetch import EncodingAhead
from reopold_vl.prompts import PromptEncoder
from reopold_vl.types import Prompt, Rollout, ScoredBatch, VisualSample


class Whole(NamedTuple):
    """All answers of a step in the order of its prompts, whoever drew them; `owners` [B] says who did.

    Answers of other processes have prompts that hold the sample alone: no ids and no image tensors.
    """

    rollouts: list[Rollout]
    batch: ScoredBatch
    owners: list[int]


def encode_share(
    encoder: PromptEncoder | EncodingAhead, samples: Sequence[VisualSample]
) -> tuple[list[int], list[Prompt], list[str]]:
    """Of this process's share of a step's samples: their places in the step, and their prompts.

    Samples that cannot be encoded are left out; the reasons are those of all processes.
    """
    keys: list[int] = []
    prompts: list[Prompt] = []
    reasons: list[str] = []
    for place in distributed.share_of(samples):
        encoded, why_not = encoder.encode_all([samples[place]])
        prompts += encoded
        keys += [place] * len(encoded)
        reasons += why_not
    return keys, prompts, [reason for each in distributed.gather_json(reasons) for reason in each]


def gather(
    samples: Sequence[VisualSample], keys: Sequence[int], rollouts: list[Rollout], batch: ScoredBatch | None
) -> Whole:
    """Every process's answers. `keys` are the places in `samples` of this process's prompts, in their order.

    `batch` is None for a process without answers. There must be one answer somewhere.
    """
    if not distributed.together():
        assert batch is not None
        return Whole(rollouts, batch, [0] * len(rollouts))
    groups = [list(group) for _, group in groupby(rollouts, key=lambda rollout: id(rollout.prompt))]
    places = [key for key, group in zip(keys, groups, strict=True) for _ in group]
    parts = {} if batch is None else {field.name: getattr(batch, field.name) for field in fields(batch)}
    parts = {name: tensor for name, tensor in parts.items() if tensor is not None}
    parts |= _answers(rollouts)
    header = {
        "places": places,
        "time": max((len(rollout.response_ids) for rollout in rollouts), default=0),
        "dtypes": {name: [str(tensor.dtype).removeprefix("torch."), tensor.ndim] for name, tensor in parts.items()},
    }
    headers = distributed.gather_json(header)
    lengths, time = [len(each["places"]) for each in headers], max(each["time"] for each in headers)
    everywhere = torch.tensor([place for each in headers for place in each["places"]])
    order = everywhere.argsort(stable=True)
    kinds = next(each["dtypes"] for each in headers if each["places"])
    found = {
        name: torch.cat(distributed.gather_tensor(_filled(parts.get(name), dtype, ndim, time), lengths))[order]
        for name, (dtype, ndim) in kinds.items()
    }
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[order].tolist()
    places = everywhere[order].tolist()
    own = {place: group[0].prompt for place, group in zip(keys, groups, strict=True)}
    prompts = {place: own.get(place) or _stub(samples[place]) for place in places}
    whole = {field.name: found.get(field.name) for field in fields(ScoredBatch)}
    if whole.get("groups") is not None:  # numbers that each process gave by itself
        whole["groups"] = everywhere[order]
    answered = _rollouts([prompts[place] for place in places], found)
    return Whole(answered, ScoredBatch(**whole), owners)  # pyright: ignore[reportArgumentType]


def _answers(rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
    if not rollouts:
        return {}
    return {
        "answer_ids": pad_right([rollout.response_ids for rollout in rollouts], 0),
        "answer_logprobs": pad_right([rollout.logprobs for rollout in rollouts], 0.0),
        "answer_entropy": pad_right([rollout.entropy for rollout in rollouts], 0.0),
        "answer_length": torch.tensor([len(rollout.response_ids) for rollout in rollouts]),
        "answer_stopped": torch.tensor([rollout.finish_reason == "stop" for rollout in rollouts]),
    }


def _rollouts(prompts: Sequence[Prompt], found: dict[str, Tensor]) -> list[Rollout]:
    lengths, stopped = found["answer_length"].tolist(), found["answer_stopped"].tolist()
    return [
        Rollout(
            prompt=prompt,
            response_ids=found["answer_ids"][row, : lengths[row]],
            logprobs=found["answer_logprobs"][row, : lengths[row]],
            entropy=found["answer_entropy"][row, : lengths[row]],
            finish_reason="stop" if stopped[row] else "length",
        )
        for row, prompt in enumerate(prompts)
    ]


def _filled(tensor: Tensor | None, dtype: str, ndim: int, time: int) -> Tensor:
    """[rows] or [rows, time], from what a process has; no rows from one that has nothing."""
    if tensor is None:
        tensor = torch.zeros([0] * ndim, dtype=getattr(torch, dtype))
    if ndim == 1:
        return tensor
    return torch.nn.functional.pad(tensor, (0, time - tensor.shape[1]))


def _stub(sample: VisualSample) -> Prompt:
    nothing = torch.zeros(0, dtype=torch.long)
    return Prompt(sample=sample, ids=nothing, token_types=nothing)
