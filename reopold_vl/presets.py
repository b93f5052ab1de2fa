"""Named configurations: `python -m reopold_vl.train NAME`. One per published setting, and the embedded pair.

The numbers of REOPOLD (arXiv 2603.11137) are those of its table of hyper-parameters:

                     math 1.5B / 7B    visual 3B / 7B    agentic 3B
    steps            300 / 200         60 / 60           40
    learning rate    1e-5 / 3e-6       5e-6              1e-6          (AdamW, constant)
    lambda, beta     0.3, 0.2          0.3, 0.2          0.3, 0.4
    T_switch         100 / 50          20                10
    rollouts n       8                 12                8
    longest answer   8192              2048              8192
    batch / mini     128 / 32          128 / 64          128 / 64

What it leaves open is ours: that a batch is counted in prompts, the precision, the pixel budget, the weight decay (0),
what is held out, and everything that changes memory and not the result. None of them has been run here but `embedded`.
docs/presets.md says it preset by preset.
"""

from __future__ import annotations

from dataclasses import dataclass

from reopold_vl.config import (
    DataConfig,
    LoRAConfig,
    OptimConfig,
    RolloutConfig,
    StudentConfig,
    TeacherConfig,
    TrainConfig,
)
from reopold_vl.objectives import Reopold


@dataclass(frozen=True)
class Preset:
    """A configuration, one line of help on it, and the recipe (`data_recipes`) whose rows it is meant for."""

    config: TrainConfig
    line: str
    recipe: str


# Found on the embedded validation split; docs/log.md tells what else was tried.
EMBEDDED = TrainConfig(
    rollout=RolloutConfig(n=4, max_new_tokens=56),
    objective=Reopold(mixture=0.2, entropy_share=0.2, switch_step=18),
    optim=OptimConfig(lr=5e-4, schedule="linear"),
    steps=60,
    prompts_per_step=32,
    eval_every=5,
    threads=1,  # matrices this small are slower on two threads, many times so where the cores are shared
)


def _paper(
    name: str,
    student: str,
    teacher: str,
    *,
    steps: int,
    lr: float,
    switch_step: int,
    n: int,
    max_new_tokens: int,
    mini_batch: int,
    entropy_share: float = 0.2,
    require_image: bool = True,
) -> TrainConfig:
    """One column of the table: lambda 0.3, batches of 128 prompts and a constant learning rate are common to all."""
    tokens_at_once = 1 << 14  # of answers in a gradient pass: ours, and only a matter of memory
    return TrainConfig(
        name=name,
        student=StudentConfig(student, compute="bfloat16", gradient_checkpointing=True),
        teacher=TeacherConfig(teacher, dtype="bfloat16"),
        data=DataConfig(validation_rows=100, test_rows=500, require_image=require_image),
        rollout=RolloutConfig(n=n, max_new_tokens=max_new_tokens, rows_at_once=8 * n),
        objective=Reopold(mixture=0.3, entropy_share=entropy_share, switch_step=switch_step),
        optim=OptimConfig(
            lr=lr,
            schedule="constant",
            updates_per_batch=128 // mini_batch,
            rows_at_once=tokens_at_once // max_new_tokens,
        ),
        steps=steps,
        prompts_per_step=128,
    )


# The visual settings. The paper names these students and this teacher; what it trained on is not known to us.
def _visual(name: str, student: str) -> TrainConfig:
    return _paper(
        name,
        student,
        "Qwen/Qwen2.5-VL-32B-Instruct",
        steps=60,
        lr=5e-6,
        switch_step=20,
        n=12,
        max_new_tokens=2048,
        mini_batch=64,
    )


# The math settings. The paper's models are language models of 1.5B and 7B without a vision tower, which are refused
# here: these presets hold its numbers for rows of text alone, with the nearest vision-language student. Both teachers
# and the rows are ours to choose.
_MATH_SMALL = _paper(
    "math-1.5b",
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
    steps=300,
    lr=1e-5,
    switch_step=100,
    n=8,
    max_new_tokens=8192,
    mini_batch=32,
    require_image=False,
)
_MATH_LARGE = _paper(
    "math-7b",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen2.5-VL-32B-Instruct",
    steps=200,
    lr=3e-6,
    switch_step=50,
    n=8,
    max_new_tokens=8192,
    mini_batch=32,
    require_image=False,
)

# The agentic setting. The paper's student calls tools over several turns; here it answers once, so this preset holds
# the numbers and not the task. Models as in the visual setting of that size: ours.
_AGENTIC = _paper(
    "agentic-3b",
    "Qwen/Qwen2.5-VL-3B-Instruct",
    "Qwen/Qwen2.5-VL-32B-Instruct",
    steps=40,
    lr=1e-6,
    switch_step=10,
    n=8,
    max_new_tokens=8192,
    mini_batch=64,
    entropy_share=0.4,
    require_image=False,
)

# A pair that users of the family distil (publicly: github.com/ffy208, by a divergence over the whole vocabulary). No
# REOPOLD numbers are published for it: these are the paper's visual ones.
_QWEN3 = _paper(
    "qwen3-vl-2b",
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
    steps=60,
    lr=5e-6,
    switch_step=20,
    n=12,
    max_new_tokens=2048,
    mini_batch=64,
)

# One GPU: no source, all ours. Frozen bf16 weights of both models take about 24 GB, the adapters and their optimizer
# 1 GB; ten times the full model's learning rate is the usual one for adapters. One update a batch: rho is 1.
_ONE_GPU = TrainConfig(
    name="qwen2.5-vl-3b-lora",
    student=StudentConfig(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        dtype="bfloat16",
        gradient_checkpointing=True,
        lora=LoRAConfig(rank=32, alpha=64.0),
        feature_cache_mb=256,  # the tower is frozen: rollout and gradient pass encode each image once between them
    ),
    teacher=TeacherConfig("Qwen/Qwen2.5-VL-7B-Instruct", dtype="bfloat16"),
    data=DataConfig(validation_rows=100, test_rows=500),
    rollout=RolloutConfig(n=8, max_new_tokens=1024, rows_at_once=64),
    objective=Reopold(mixture=0.3, entropy_share=0.2, switch_step=40),
    optim=OptimConfig(lr=5e-5, schedule="constant_with_warmup", warmup_updates=5, rows_at_once=8),
    steps=120,
    prompts_per_step=16,
)

CATALOGUE: dict[str, Preset] = {
    "embedded": Preset(EMBEDDED, "the pair and benchmark in this package: CPU, minutes, no download", "embedded"),
    "qwen2.5-vl-3b": Preset(
        _visual("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct"),
        "the paper's visual 3B: Qwen2.5-VL 32B -> 3B, 60 steps, n 12, 2048 tokens",
        "geometry3k or virl39k",
    ),
    "qwen2.5-vl-7b": Preset(
        _visual("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct"),
        "the paper's visual 7B: Qwen2.5-VL 32B -> 7B, 60 steps, n 12, 2048 tokens",
        "geometry3k or virl39k",
    ),
    "qwen2.5-vl-3b-lora": Preset(
        _ONE_GPU,
        "one GPU of 40 GB, LoRA: Qwen2.5-VL 7B -> 3B, 120 steps, n 8; ours",
        "geometry3k or virl39k",
    ),
    "qwen3-vl-2b": Preset(
        _QWEN3,
        "Qwen3-VL 8B -> 2B with the paper's visual numbers",
        "geometry3k or virl39k",
    ),
    "math-1.5b": Preset(
        _MATH_SMALL,
        "the paper's math 1.5B numbers, for rows of text: Qwen3-VL 8B -> 2B",
        "trl or local (rows of text)",
    ),
    "math-7b": Preset(
        _MATH_LARGE,
        "the paper's math 7B numbers, for rows of text: Qwen2.5-VL 32B -> 7B",
        "trl or local (rows of text)",
    ),
    "agentic-3b": Preset(
        _AGENTIC,
        "the paper's agentic 3B numbers, without tools: Qwen2.5-VL 32B -> 3B",
        "trl or local (rows of text)",
    ),
}

PRESETS: dict[str, TrainConfig] = {name: preset.config for name, preset in CATALOGUE.items()}


def listing() -> str:
    """One line for each preset: its name and what it is."""
    width = max(map(len, CATALOGUE))
    return "\n".join(f"  {name:<{width}}  {preset.line}" for name, preset in CATALOGUE.items())
