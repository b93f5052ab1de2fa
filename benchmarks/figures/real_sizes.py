"""The operations of a step at the sizes of real models, by formula: what the figures of a small model cannot show.

GRPO as TRL 1.16 goes about it: each of a prompt's answers is sampled, scored and trained on behind a prompt of its own.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.figures.setup import SIZE
from benchmarks.gpu_shapes import SIZES, answers_work, build_module
from reopold_vl.zoo.architecture import build_tokenizer

N = 8
TEXT_TOKENS = 32  # of a prompt; the rest is its image, a visual token for four patches
PAIRS = {"this page's": (SIZE, SIZE), "3B, teacher 7B": (SIZES["3b"], SIZES["7b"])}
SHAPES = ((48, 288), (192, 288), (192, 1056), (512, 288), (512, 1056), (2048, 1056))


def ours(student: Any, teacher: Any, *, prompt: int, response: int) -> tuple[float, float]:
    """Operations of the answers to one prompt, and the teacher's share of them: each of both is read once."""
    shape = {"prompt": prompt, "patches": 4 * (prompt - TEXT_TOKENS), "n": N, "response": response}
    own, scoring = answers_work(student, **shape), answers_work(teacher, **shape).times(1, 1)
    whole = own.times(1, 1) + scoring + own.times(3, 3)  # sampled, scored by the teacher, trained on
    return whole, scoring / whole


def grpo(student: Any, *, prompt: int, response: int) -> float:
    """The same for TRL's GRPO, without a teacher: sampled, scored for the old log-probs, trained on, row by row."""
    row = answers_work(student, prompt=prompt, patches=4 * (prompt - TEXT_TOKENS), n=1, response=response)
    return N * (row.times(1, 1) + row.times(1, 1) + row.times(3, 3))


def text() -> str:
    """Markdown: a step's operations for each token, ours and GRPO's, and how they grow with the answers' length."""
    tokenizer = build_tokenizer()
    lines = [
        "| student | answers | GFLOP a token | the teacher's part | of TRL GRPO | ratio | answers twice as long |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, sizes in PAIRS.items():
        student, teacher = (
            build_module(size, tokenizer, dtype=torch.bfloat16, device=torch.device("meta")) for size in sizes
        )
        for response, prompt in SHAPES:
            own, share = ours(student, teacher, prompt=prompt, response=response)
            longer, _ = ours(student, teacher, prompt=prompt, response=2 * response)
            peer, tokens = grpo(student, prompt=prompt, response=response), N * response * 1e9
            lines.append(
                f"| {name} | {response} tokens behind {prompt} | {own / tokens:.3g} | {share:.0%} "
                f"| {peer / tokens:.3g} | {own / peer:.3f} | {longer / own:.2f} times |"
            )
    return "\n".join(lines) + "\n"
