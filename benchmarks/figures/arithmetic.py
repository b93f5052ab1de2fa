"""How much arithmetic a piece of work is: what is left when nothing is done twice, whoever's code it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import flop_counter

aten: Any = torch.ops.aten
Shape = tuple[int, ...]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return flop_counter.sdpa_flop_count(query, key, value)


def _attention_backward(push: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(push, query, key, value)


def _added(_: Shape, one: Shape, other: Shape, **__: Any) -> int:
    return 2 * one[0] * one[1] * other[1]


# torch's counter knows the same products under the names that they have on a GPU.
ON_THE_CPU: dict[Any, Any] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.addmm_: _added,
}


def operations(work: Callable[[], Any]) -> float:
    """Additions and multiplications in the products of matrices of `work`."""
    with flop_counter.FlopCounterMode(display=False, custom_mapping=ON_THE_CPU) as counter:
        work()
    return float(counter.get_total_flops())
