"""Timing calls of the engine: settings, clock, synchronised runs, peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from eval.types import Problem
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import Prompt, Rollout


@dataclass(frozen=True)
class Clock:
    """Reads wall and process CPU time; a fake one makes tests exact."""

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class SpeedSettings:
    """How to measure; the same for every model that is compared.

    The first `problems` problems are answered at each batch size, but at batch size 1 only `problems_alone` of them.
    `fixed_tokens` is the length of the runs that ignore the end token. Raises `ValueError` naming the field.
    """

    batch_sizes: tuple[int, ...] = (1, 16)
    max_new_tokens: int = 1024
    fixed_tokens: int = 64
    problems: int = 64
    problems_alone: int = 16
    flop_problems: int = 4
    repeats: int = 3
    warmup: int = 1
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.batch_sizes) < 1 or len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise ValueError(f"batch_sizes is {self.batch_sizes}: allowed are different sizes of 1 or more")
        for name, least in (
            ("max_new_tokens", 1),
            ("fixed_tokens", 2),
            ("problems", 1),
            ("problems_alone", 1),
            ("flop_problems", 1),
            ("repeats", 1),
            ("warmup", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: allowed is {least} or more")


DEFAULT = SpeedSettings()
EMBEDDED = SpeedSettings(batch_sizes=(1, 64), max_new_tokens=56, fixed_tokens=40, problems=64, problems_alone=8)
"""For the embedded pair: both models and the votes in about 20 seconds of one CPU thread."""


@dataclass(frozen=True)
class Run:
    """One timed call of the engine."""

    wall: float
    cpu: float
    rollouts: list[Rollout]


def encode(
    model: VisionLanguageModel, problems: Sequence[Problem], prompt: Callable[[Problem], str]
) -> tuple[list[Problem], list[Prompt]]:
    """The problems that the model can be shown, and their prompts."""
    shown, prompts = [], []
    for problem in problems:
        try:
            prompts.append(model.encoder(problem.put_as(prompt(problem))))
        except ValueError:  # counted by the caller, named where the answers are generated
            continue
        shown.append(problem)
    return shown, prompts


def timed(model: VisionLanguageModel, clock: Clock, call: Callable[[], list[Rollout]]) -> Run:
    """Run `call` between two readings of the clock, with the device's queue empty at both."""
    _synchronise(model.policy.device)
    wall, cpu = clock.wall(), clock.cpu()
    rollouts = call()
    _synchronise(model.policy.device)
    return Run(clock.wall() - wall, clock.cpu() - cpu, rollouts)


# By whether the device is a GPU.
MEMORY_NOTES = {
    True: "peak memory that torch allocated on the GPU, everything loaded there included",
    False: "peak resident memory of the whole process since its start, everything loaded included: an upper bound",
}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Begin to watch peak memory anew, where the device can (a GPU)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes; what they are is in MEMORY_NOTES. None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(device: torch.device) -> str:
    """Kind of the device and, for a GPU, its model."""
    return f"{device.type}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
