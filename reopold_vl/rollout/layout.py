"""Weights laid out for products of a few rows, which decoding steps on a CPU are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from reopold_vl.policy import Policy

LARGEST = 2**20  # numbers in a weight; a larger one gains little or loses


@contextmanager
def columns_side_by_side(policy: Policy) -> Iterator[None]:
    """Small fp32 weights of linear layers lie transposed in memory meanwhile, moved one at a time: values are the same.

    Weights on a GPU, in another precision or an embedding's as well stay as they are. So do those of a policy that is
    cut up: FSDP2 gathers whole ones into memory of its own, and a weight moved out of there would be the old one then.
    """
    if isinstance(policy, FSDPModule):
        yield
        return
    model = policy.model.base_model
    tied = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    linear = [layer.weight for layer in model.modules() if type(layer) is nn.Linear and id(layer.weight) not in tied]
    weights = [weight for weight in linear if _gains(weight)]
    try:
        for weight in weights:
            weight.data = weight.data.t().contiguous().t()
        yield
    finally:
        for weight in weights:
            weight.data = weight.data.contiguous()


def _gains(weight: Tensor) -> bool:
    plain = type(weight.data) is Tensor and weight.device.type == "cpu" and weight.dtype == torch.float32
    return plain and weight.numel() <= LARGEST
