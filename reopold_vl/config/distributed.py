"""How the processes that torchrun starts share the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reopold_vl.config.base import require
from reopold_vl.launch import launched, launched_size


@dataclass(frozen=True)
class DistributedConfig:
    """Several processes, one per GPU: `torchrun --nproc-per-node N -m reopold_vl.train ...` (docs/scaling.md)."""

    strategy: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """ddp: every process holds the whole student. fsdp: weights, gradients and optimizer states are cut up over the
    processes (FSDP2), with matrix products in student.compute. auto: ddp under torchrun, none without."""

    cpu_offload: bool = False
    """fsdp: keep the student's weights, gradients and optimizer states in the CPU's memory between uses."""

    shard_teacher: bool = False
    """Cut a local teacher up over the processes as well; it is then not measured on the held-out problems."""

    fetch_tokens: int = 2048
    """How many tokens could be computed while a cut-up model's weights are fetched, and gradients sent, for one more
    pass: a prompt is read once for all its answers where that saves more. 8/6 of FLOP/s over bytes/s of the network:
    2048 is for 400 TFLOP/s and 260 GB/s."""

    timeout_minutes: float = 30.0
    """A process that waits longer than this for the others gives up. It must exceed the spread of a step's time."""

    def __post_init__(self) -> None:
        sharded = self.strategy == "fsdp"
        require(sharded or not self.cpu_offload, "distributed.cpu_offload", self.cpu_offload, "True with strategy=fsdp")
        alone = self.shard_teacher and self.strategy == "none"
        require(not alone, "distributed.shard_teacher", self.shard_teacher, "False with strategy=none")
        require(self.fetch_tokens >= 0, "distributed.fetch_tokens", self.fetch_tokens, "0 or more")
        require(self.timeout_minutes > 0, "distributed.timeout_minutes", self.timeout_minutes, "above 0")

    def resolved(self) -> Literal["none", "ddp", "fsdp"]:
        """The strategy for the processes there are; raises ConfigError for one that does not suit them."""
        require(launched() or not self.shard_teacher, "distributed.shard_teacher", True, "False without torchrun")
        if self.strategy == "auto":
            return "ddp" if launched_size() > 1 else "none"
        alone = "none or auto: this process was not started by torchrun (of one process: --nproc-per-node 1)"
        require(launched() or self.strategy == "none", "distributed.strategy", self.strategy, alone)
        several = f"ddp, fsdp or auto for {launched_size()} processes"
        require(launched_size() == 1 or self.strategy != "none", "distributed.strategy", self.strategy, several)
        return self.strategy
