"""Named configurations: `python -m reopold_vl.train NAME`. One per published number, and the embedded pair."""

from __future__ import annotations

from dataclasses import replace

from reopold_vl.config import DataConfig, OptimConfig, RolloutConfig, StudentConfig, TeacherConfig, TrainConfig
from reopold_vl.objectives import Reopold

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

# The paper's visual settings (arXiv 2603.11137): 60 steps, lr 5e-6, lambda 0.3, beta 0.2, T_switch 20, n = 12,
# answers of up to 2048 tokens, batch 128 with mini-batches of 64. They need GPUs and were not run here.
_PAPER_VISUAL = TrainConfig(
    data=DataConfig(validation_rows=100, test_rows=500),
    rollout=RolloutConfig(n=12, max_new_tokens=2048, rows_at_once=96),
    objective=Reopold(mixture=0.3, entropy_share=0.2, switch_step=20),
    optim=OptimConfig(lr=5e-6, updates_per_batch=2, rows_at_once=8),
    steps=60,
    prompts_per_step=128,
)


def _paper_visual(student: str, teacher: str, name: str) -> TrainConfig:
    return replace(
        _PAPER_VISUAL,
        name=name,
        student=StudentConfig(student, compute="bfloat16"),
        teacher=TeacherConfig(teacher, dtype="bfloat16"),
    )


PRESETS: dict[str, TrainConfig] = {
    "embedded": EMBEDDED,
    "qwen2.5-vl-3b": _paper_visual("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-32B-Instruct", "qwen2.5-vl-3b"),
    "qwen2.5-vl-7b": _paper_visual("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-32B-Instruct", "qwen2.5-vl-7b"),
}
