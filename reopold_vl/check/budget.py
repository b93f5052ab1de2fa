"""Does a run of these settings fit into its devices? Asked before anything is loaded, and again with real prompts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reopold_vl.check.device import available_bytes
from reopold_vl.check.lower import Lowered, what_to_lower
from reopold_vl.check.memory import estimate
from reopold_vl.check.plan import Estimate, ModelSize, Plan
from reopold_vl.check.result import Result
from reopold_vl.check.sizes import size_of, skeleton, trained
from reopold_vl.config import ConfigError, RolloutConfig, TrainConfig
from reopold_vl.config.teacher import is_url
from reopold_vl.launch import launched_size
from reopold_vl.lora import read_config
from reopold_vl.models import pick_device
from reopold_vl.types import Prompt

FACTOR = 1.5  # within which the estimate is right
TIGHT = 0.9  # of what is there: above it, fragments and the driver decide
TEXT_TOKENS = 32  # of a prompt whose rows have not been looked at
GIB, MIB = 1 << 30, 1 << 20


@dataclass(frozen=True)
class Budget:
    """A run's plan and what its devices have: `plan.teacher` is None where the teacher is elsewhere.

    `teacher` and `teacher_device` are those of a teacher on another device of this process.
    """

    plan: Plan
    available: Mapping[torch.device, int]
    device: torch.device
    teacher: ModelSize | None = None
    teacher_device: torch.device | None = None

    def with_prompts(self, prompts: Sequence[Prompt]) -> Budget:
        """The same with the longest of these prompts, in place of the shortest that could be."""
        if not prompts:
            return self
        longest = max(len(prompt.ids) for prompt in prompts)
        visual = max(int((prompt.token_types == 1).sum()) for prompt in prompts)
        return replace(self, plan=replace(self.plan, prompt_tokens=longest, image_tokens=visual))

    @property
    def whole_bytes(self) -> int:
        """The weights of the student, and of a teacher beside it, in one process."""
        held = estimate(replace(self.plan, shards=1, teacher_shards=1, offloaded=False)).held
        return sum(size for name, size in held.items() if name.endswith("weights"))

    def results(self) -> list[Result]:
        """One line a device."""
        lower = what_to_lower(self.plan, self.available[self.device], other_devices=torch.cuda.device_count() > 1)
        found = [memory(estimate(self.plan), self.available[self.device], lower, where=str(self.device))]
        if self.teacher is not None and self.teacher_device is not None:
            alone = replace(self.plan, teacher=self.teacher)
            whole = estimate(alone)
            held = {"teacher weights": whole.held["teacher weights"]}
            own = Estimate(held, {"teacher scoring": whole.phases["teacher scoring"], "gradients": 0})
            found.append(memory(own, self.available[self.teacher_device], [], where=str(self.teacher_device)))
        return found


def memory(needed: Estimate, available: int, lower: list[Lowered], *, where: str) -> Result:
    """Red where what is counted exactly does not fit, or the estimate is wrong by more than its factor."""
    name = "memory"
    parts = [*sorted(needed.held.items(), key=lambda item: -item[1]), (needed.phase, needed.phases[needed.phase])]
    listed = ", ".join(f"{part} {amount(size)}" for part, size in parts if size)
    measured = f"about {amount(needed.peak)} of {amount(available)} on {where}: {listed}"
    steps = ", ".join(f"{step.flags} ({amount(step.peak)})" for step in lower)
    enough = bool(lower) and lower[-1].peak <= available
    advice = f"lower, in order: {steps}" if steps else "take a smaller model, or a larger device"
    if steps and not enough:
        advice += "; that is not enough: share it among GPUs (torchrun, --distributed.strategy fsdp)"
    if needed.certain > available or needed.peak > FACTOR * available:
        return Result(name, "fail", measured, advice)
    if needed.peak > available:
        return Result(name, "warn", f"{measured}; tight, within what the estimate may be off", advice)
    if needed.peak > TIGHT * available:
        return Result(name, "warn", f"{measured}; tight", "if it runs out, lower --optim.rows-at-once first")
    return Result(name, "ok", measured)


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB // 2 else f"{size / MIB:,.0f} MiB"


def require_memory(found: Budget) -> list[Result]:
    """The budget's lines. Raises ConfigError with the first one that is red."""
    results = found.results()
    red = next((result for result in results if result.status == "fail"), None)
    if red is not None:
        raise ConfigError(str(red))
    return results


def budget(config: TrainConfig) -> Budget:
    """From the settings and both models' config.json alone, with short prompts of text: what is red is red for sure.

    Raises ModelError for a path that is no model.
    """
    student = skeleton(config.student.path, trust_remote_code=config.student.trust_remote_code)
    device = pick_device(config.student.device, field="student.device")
    other = pick_device(config.teacher.device, field="teacher.device")
    teacher = _local_teachers(config)
    available = {place: available_bytes(place) // _sharers(place) for place in {device, other}}
    beside = _same(device, other)
    plan = _plan(config, student, teacher if beside else None)
    return Budget(plan, available, device, None if beside else teacher, None if beside else other)


def _plan(config: TrainConfig, student: Any, teacher: ModelSize | None) -> Plan:
    own, optim, rollout = config.student, config.optim, config.rollout
    size = size_of(student)
    rank = own.lora.rank if own.adapter is None else read_config(Path(own.adapter).expanduser()).r
    parameters = trained(
        student,
        rank=rank,
        targets=own.lora.targets,
        tower_fixed=own.freeze_vision,
        projector_fixed=own.freeze_projector,
    )
    share = -(-rollout.n * config.prompts_per_step // launched_size())  # answers of this process in a step
    strategy = config.distributed.resolved()
    caches = own.feature_cache_mb + (config.teacher.feature_cache_mb if teacher else 0)
    return Plan(
        student=size,
        trainable=parameters.trainable,
        adapters=parameters.adapters,
        rollout_rows=min(rollout.rows_at_once, share),
        learn_rows=min(optim.rows_at_once, max(1, share // optim.updates_per_batch)),
        n=rollout.n,
        prompt_tokens=min(rollout.max_prompt_tokens, TEXT_TOKENS),
        image_tokens=0,
        response_tokens=rollout.max_new_tokens,
        weight_bytes=_bytes(own.dtype),
        compute_bytes=_bytes(own.compute, own.dtype),
        master=optim.master == "float32",
        ema=optim.ema_decay > 0,
        checkpointing=own.gradient_checkpointing,
        frozen_vision=(own.freeze_vision and own.freeze_projector) or parameters.adapters > 0,
        whole_attention=own.attention == "eager",
        cached_features=caches * MIB,
        shards=launched_size() if strategy == "fsdp" else 1,
        offloaded=config.distributed.cpu_offload,
        copied=strategy == "ddp",
        engine_bytes=_engine_bytes(rollout, pick_device(own.device)),
        engine_stays=rollout.engine == "vllm" and not rollout.vllm.sleep,
        teacher=teacher,
        teacher_shards=launched_size() if config.distributed.shard_teacher else 1,
        fetch_tokens=config.distributed.fetch_tokens,
        teacher_bytes=_bytes(config.teacher.dtype),
        teacher_compute_bytes=_bytes(config.teacher.compute, config.teacher.dtype),
    )


def _engine_bytes(rollout: RolloutConfig, device: torch.device) -> int | None:
    """What vLLM takes of the student's device; None where the student samples by itself."""
    if rollout.engine == "hf":
        return None
    if rollout.engine == "vllm-server" or device.type != "cuda":
        return 0
    return int(rollout.vllm.gpu_memory * torch.cuda.get_device_properties(device).total_memory)


def _local_teachers(config: TrainConfig) -> ModelSize | None:
    """The teacher in this process, or the largest of several with the weights of all; None behind a URL."""
    paths = {config.teacher.path, *(path for _, path in config.teacher.routes_by_source)}
    trust = config.teacher.trust_remote_code
    sizes = [size_of(skeleton(path, trust_remote_code=trust)) for path in sorted(paths) if not is_url(path)]
    if not sizes:
        return None
    largest = max(sizes, key=lambda size: size.parameters)
    return replace(largest, parameters=sum(size.parameters for size in sizes))


def _bytes(*dtypes: str) -> int:
    return 4 if all(dtype == "float32" for dtype in dtypes) else 2


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def _sharers(device: torch.device) -> int:
    """Processes of this machine that take from the same memory: all of them on a CPU, each GPU has its own."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
