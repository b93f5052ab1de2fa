"""How the student learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reopold_vl.config.base import require


@dataclass(frozen=True)
class OptimConfig:
    """AdamW on the student."""

    lr: float = 5e-4
    """Peak learning rate."""

    schedule: Literal["constant", "constant_with_warmup", "cosine", "cosine_with_min_lr", "linear"] = (
        "constant_with_warmup"
    )
    """Learning-rate schedule over all updates."""

    warmup_updates: int = 0
    """Updates over which the learning rate rises from 0."""

    min_lr_ratio: float = 0.1
    """Where cosine_with_min_lr ends, as a share of lr."""

    weight_decay: float = 0.0
    """Decoupled weight decay of matrices (never of norms and biases)."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    updates_per_batch: int = 1
    """Updates on each batch of rollouts; more than one makes the ratio rho differ from 1."""

    rows_at_once: int = 128
    """Answers in one forward and backward pass (micro-batch); changes memory, not the result."""

    master: Literal["none", "float32"] = "none"
    """float32 keeps master weights and moments in fp32 beside a student in bfloat16 (12 bytes a weight, and 2 each for
    the weight and its gradient): updates that bf16 would round away add up."""

    ema_decay: float = 0.0
    """Decay an update of the moving average of the student (0: off), saved as student_ema/ beside student/. It costs
    4 bytes a trained weight, one more copy of the trained weights while it is measured, and a second measurement."""

    max_bad_steps: int = 5
    """Stop after this many steps in a row with a non-finite loss or gradient."""

    def __post_init__(self) -> None:
        require(0 < self.lr < 1, "optim.lr", self.lr, "above 0 and below 1")
        require(self.max_grad_norm > 0, "optim.max_grad_norm", self.max_grad_norm, "above 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_updates >= 0, "optim.warmup_updates", self.warmup_updates, "0 or more")
        plain = self.schedule != "constant" or self.warmup_updates == 0
        require(plain, "optim.warmup_updates", self.warmup_updates, "0 with the schedule constant")
        require(0 <= self.min_lr_ratio < 1, "optim.min_lr_ratio", self.min_lr_ratio, "0 to below 1")
        require(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "0 (off) to below 1")
        require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers in [0, 1)")
        for name in ("updates_per_batch", "rows_at_once", "max_bad_steps"):
            require(getattr(self, name) >= 1, f"optim.{name}", getattr(self, name), "1 or more")
