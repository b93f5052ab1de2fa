"""The numbers that a memory estimate is made from, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FP32 = 4


@dataclass(frozen=True)
class ModelSize:
    """One model in numbers; `vision_*` describes the tower, whose patches `patches_per_token` make one visual token."""

    parameters: int
    vision_parameters: int
    embedding_parameters: int  # input embeddings that the head does not share
    layers: int
    hidden: int
    intermediate: int
    query_width: int
    key_width: int
    heads: int
    vocabulary: int
    adapter_width: int = 0  # rows and columns of all linear layers of the decoder: parameters of LoRA of rank 1
    vision_layers: int = 0
    vision_hidden: int = 0
    vision_intermediate: int = 0
    patches_per_token: float = 4


@dataclass(frozen=True)
class Plan:
    """The settings of a run that decide its memory; counts of rows and tokens are of one process.

    `weight_bytes` and `compute_bytes` are those of one parameter and of one element in a matrix product. `trainable`
    counts the trained parameters, `adapters` those that LoRA adds (the trained ones, then). `master` keeps fp32 copies
    of half-precision weights, `ema` an average. `rollout_rows` answers are sampled at once, `learn_rows` are in one
    forward and backward pass, `n` of them share a prompt of `prompt_tokens`, `image_tokens` of which are visual.
    `teacher` shares the device (None: it is elsewhere). `shards` processes part weights, gradients and moments (FSDP);
    `offloaded` ones lie in the CPU's memory. `copied`: gradients are exchanged whole (DDP). `teacher_shards` processes
    part the teacher. `fetch_tokens` is what one more pass of a parted model costs, in tokens. `cached_features` are
    bytes. `engine_bytes` is what another engine than the student's own takes on this device while it samples (None: no
    other), `engine_stays` that it keeps them.
    """

    student: ModelSize
    trainable: int
    rollout_rows: int
    learn_rows: int
    n: int
    prompt_tokens: int
    image_tokens: int
    response_tokens: int
    weight_bytes: int = FP32
    compute_bytes: int = FP32
    adapters: int = 0
    master: bool = False
    ema: bool = False
    checkpointing: bool = False
    frozen_vision: bool = False
    whole_attention: bool = False
    cached_features: int = 0
    shards: int = 1
    offloaded: bool = False
    copied: bool = False
    engine_bytes: int | None = None
    engine_stays: bool = False
    teacher: ModelSize | None = None
    teacher_shards: int = 1
    fetch_tokens: int = 0
    teacher_bytes: int = FP32
    teacher_compute_bytes: int = FP32


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device. `held` stays for the whole run, `phases` come one after another; the largest counts."""

    held: Mapping[str, int]
    phases: Mapping[str, int]

    @property
    def phase(self) -> str:
        """The phase with the peak."""
        return max(self.phases, key=lambda name: self.phases[name])

    @property
    def certain(self) -> int:
        """What is counted rather than estimated: all that is held, and the gradients."""
        return sum(self.held.values()) + self.phases["gradients"]

    @property
    def peak(self) -> int:
        return sum(self.held.values()) + self.phases[self.phase]
