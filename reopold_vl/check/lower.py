"""What to lower when a plan is too large for its device, in the order in which it costs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from reopold_vl.check.memory import estimate
from reopold_vl.check.plan import Plan

Step = Callable[[Plan, int], tuple[str, Plan] | None]  # the flags and the plan with them; None if it is taken already
WORTH = 0.95  # a step that leaves more than this share of the peak is not worth a line


@dataclass(frozen=True)
class Lowered:
    """One step: the flags that take it, and the peak in bytes with it and all before it."""

    flags: str
    peak: int


def what_to_lower(plan: Plan, available: int, *, other_devices: bool = False) -> list[Lowered]:
    """Steps that bring the plan's peak below `available`, or all that help where none does.

    First what costs time alone (micro-batches, recomputation), then what costs detail or freedom (the vision tower
    fixed, LoRA), then what costs another device. A step that a later one makes needless is left out.
    """
    taken = _taken([*_STEPS, _teacher_elsewhere(other_devices)], plan, available)
    if taken and taken[-1][1].peak <= available:
        for step, _ in list(taken):
            without = _taken([other for other, _ in taken if other is not step], plan, available)
            if without and without[-1][1].peak <= available:
                taken = without
    return [lowered for _, lowered in taken]


def _taken(steps: Sequence[Step], plan: Plan, available: int) -> list[tuple[Step, Lowered]]:
    """The steps that help, one after another, until the plan fits."""
    taken: list[tuple[Step, Lowered]] = []
    peak = estimate(plan).peak
    for step in steps:
        found = step(plan, available) if peak > available else None
        if found is None:
            continue
        flags, lowered = found
        smaller = estimate(lowered).peak
        if smaller <= WORTH * peak:
            plan, peak = lowered, smaller
            taken.append((step, Lowered(flags, peak)))
    return taken


def _teacher_dtype(plan: Plan, available: int) -> tuple[str, Plan] | None:
    if plan.teacher is None or plan.teacher_bytes == 2:
        return None
    return "--teacher.dtype bfloat16", replace(plan, teacher_bytes=2, teacher_compute_bytes=2)


def _learn_rows(plan: Plan, available: int) -> tuple[str, Plan] | None:
    """Halved until it fits; the result of a step stays the same."""
    rows = plan.learn_rows
    while rows > 1 and estimate(replace(plan, learn_rows=rows)).peak > available:
        rows //= 2
    return (f"--optim.rows-at-once {rows}", replace(plan, learn_rows=rows)) if rows < plan.learn_rows else None


def _rollout_rows(plan: Plan, available: int) -> tuple[str, Plan] | None:
    """Halved until it fits, down to one prompt's answers."""
    rows = plan.rollout_rows
    while rows // 2 >= plan.n and estimate(replace(plan, rollout_rows=rows)).peak > available:
        rows //= 2
    return (f"--rollout.rows-at-once {rows}", replace(plan, rollout_rows=rows)) if rows < plan.rollout_rows else None


def _checkpointing(plan: Plan, available: int) -> tuple[str, Plan] | None:
    return None if plan.checkpointing else ("--student.gradient-checkpointing", replace(plan, checkpointing=True))


def _freeze_vision(plan: Plan, available: int) -> tuple[str, Plan] | None:
    if plan.frozen_vision or plan.adapters:
        return None
    fewer = max(0, plan.trainable - plan.student.vision_parameters)
    return "--student.freeze-vision", replace(plan, frozen_vision=True, trainable=fewer)


def _lora(plan: Plan, available: int) -> tuple[str, Plan] | None:
    if plan.adapters:
        return None
    count = 16 * plan.student.adapter_width
    small = replace(plan, trainable=count, adapters=count, frozen_vision=True, weight_bytes=2, compute_bytes=2)
    off = " --optim.master none" if plan.master else ""
    return f"--student.lora.rank 16 --student.dtype bfloat16{off}", replace(small, master=False)


def _teacher_elsewhere(other_devices: bool) -> Step:
    where = "--teacher.device cuda:1" if other_devices else "--teacher.path URL (reopold_vl.serve_teacher elsewhere)"

    def step(plan: Plan, available: int) -> tuple[str, Plan] | None:
        return None if plan.teacher is None else (where, replace(plan, teacher=None))

    return step


_STEPS: tuple[Step, ...] = (_teacher_dtype, _learn_rows, _rollout_rows, _checkpointing, _freeze_vision, _lora)
