"""Floating point operations of an answer: counted by torch on three short runs, continued exactly to any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count

from eval.speed_types import FlopCount
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import Prompt

_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
_BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"


@dataclass(frozen=True)
class FlopLine:
    """Operations to answer one prompt with t tokens: prefill + (t - 1) step + growth (t - 1)(t - 2) / 2.

    Everything but attention costs the same at each decoding step, and attention over the cache grows by the same
    amount with each token, so three lengths determine all others.
    """

    prefill: float
    step: float
    growth: float

    def at(self, tokens: float) -> float:
        """Operations for `tokens` >= 1 output tokens."""
        return self.prefill + (tokens - 1) * self.step + self.growth * (tokens - 1) * (tokens - 2) / 2


def flop_line(model: VisionLanguageModel, prompt: Prompt) -> FlopLine:
    """Count answers of 1, 2 and 3 tokens to one prompt."""
    one, two, three = (count_generation(model, prompt, tokens) for tokens in (1, 2, 3))
    return FlopLine(prefill=one, step=two - one, growth=(three - two) - (two - one))


def count_generation(model: VisionLanguageModel, prompt: Prompt, tokens: int) -> int:
    """Operations that the engine spends on exactly `tokens` tokens: matrix products, convolutions and attention."""
    engine = replace(model.engine(rows_at_once=1), eos_ids=())
    return operations(lambda: engine.generate([prompt], n=1, max_new_tokens=tokens, seed=0, temperature=0.0))


def operations(work: Callable[[], Any]) -> int:
    """Operations in the matrix products, convolutions and attention of `work`, forward and backward."""
    formulas = dict.fromkeys(_ATTENTION, _attention) | {_BACKWARD: _attention_backward, "addmm_": _added}
    known = {
        getattr(torch.ops.aten, name): formula for name, formula in formulas.items() if hasattr(torch.ops.aten, name)
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return counter.get_total_flops()


def count_flops(model: VisionLanguageModel, prompts: Sequence[Prompt], output_tokens: float) -> FlopCount:
    """Mean operations over `prompts` for answers of `output_tokens` tokens."""
    lines = [flop_line(model, prompt) for prompt in prompts]
    length = sum(len(prompt.ids) for prompt in prompts) / len(prompts)
    return FlopCount(
        prefill=sum(line.prefill for line in lines) / len(lines),
        per_problem=sum(line.at(output_tokens) for line in lines) / len(lines),
        estimate=2 * model.num_parameters * (length + output_tokens),
        output_tokens=output_tokens,
    )


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Scores and weighted sum; torch's own count lacks the CPU operator."""
    batch, heads, queries, size = query
    return 2 * batch * heads * queries * key[-2] * (size + value[-1])


def _attention_backward(push: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """torch's formula, for the CPU operator."""
    return sdpa_backward_flop_count(push, query, key, value)


def _added(_: Any, one: Any, other: Any, **__: Any) -> int:
    return 2 * one[0] * one[1] * other[1]
