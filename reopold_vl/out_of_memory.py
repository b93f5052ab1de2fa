"""What to do when a device has no memory left: what costs nothing in quality first, what changes the training last."""

from __future__ import annotations

from reopold_vl.config import TrainConfig
from reopold_vl.config.teacher import is_url


def what_to_lower(config: TrainConfig) -> list[str]:
    """Flags that lower the memory of a run with these settings, in the order to try them."""
    student, optim, rollout = config.student, config.optim, config.rollout
    fewer, apart = optim.rows_at_once > 1, config.teacher.device == student.device and not is_url(config.teacher.path)
    frozen = student.freeze_vision or student.adapts
    half = config.teacher.dtype == "float32" and apart
    wanted = {
        f"--optim.rows-at-once (now {optim.rows_at_once})": fewer,
        f"--rollout.rows-at-once (now {rollout.rows_at_once})": rollout.rows_at_once > rollout.n,
        "--student.gradient-checkpointing": not student.gradient_checkpointing,
        f"--images.max-pixels (now {config.images.max_pixels})": True,
        "--student.freeze-vision": not frozen,
        "--student.lora.rank 16": not student.adapts,
        "--student.dtype bfloat16 --optim.master float32": student.dtype == "float32" and not student.adapts,
        "--student.dtype bfloat16": student.dtype == "float32" and student.adapts,
        "--teacher.dtype bfloat16": half,
        "--teacher.device cuda:1, or a teacher server": apart,
    }
    return [flag for flag, useful in wanted.items() if useful]
