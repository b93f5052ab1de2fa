"""From a configuration to the student and its teacher, each checked before the other is trusted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import torch

from reopold_vl.check import PairReport, check_pair
from reopold_vl.config import ModelConfig, TrainConfig
from reopold_vl.config.teacher import is_url
from reopold_vl.data import DataError
from reopold_vl.models import VisionLanguageModel, load_model, pick_device
from reopold_vl.needs import needs_of
from reopold_vl.seeds import derive_seed
from reopold_vl.sharding import Learner, shard, spread
from reopold_vl.student import prepare_student
from reopold_vl.teachers import Teacher
from reopold_vl.teachers.build import build_teacher, connect, with_shared_prompts
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import parties
from reopold_vl.teachers.spans import span_teacher
from reopold_vl.types import Prompt, VisualSample


def load_student(config: TrainConfig) -> VisionLanguageModel:
    own = config.student
    sharded = config.distributed.resolved() == "fsdp"
    student = load_one(
        config, replace(own, device="cpu") if sharded else own
    )  # a device may have no room for all of it
    prepare_student(
        student,
        adapter=own.adapter,
        **asdict(own.lora),
        freeze_vision=own.freeze_vision,
        freeze_projector=own.freeze_projector,
        gradient_checkpointing=own.gradient_checkpointing,
        seed=derive_seed(config.seed, "lora"),
    )
    return student


def load_reference(config: TrainConfig) -> VisionLanguageModel | None:
    """The student as it is before training, for objectives that compare with it; it rests on the CPU.

    None where it need not be loaded again: new adapters leave their base as it was.
    """
    own = config.student
    wanted = "reference_logprobs" in needs_of(config.objective)
    if not wanted or (own.adapts and own.adapter is None):
        return None
    model = load_one(config, replace(own, device="cpu", feature_cache_mb=0))
    prepare_student(model, adapter=own.adapter)
    model.policy.requires_grad_(False)
    return model


def spread_student(config: TrainConfig, student: VisionLanguageModel) -> Learner:
    """The student over the processes that there are; its parameters are the final ones afterwards."""
    own = config.distributed
    return spread(
        student,
        own.resolved(),
        device=pick_device(config.student.device),
        cpu_offload=own.cpu_offload,
        compute=getattr(torch, config.student.compute),
        fetch_tokens=own.fetch_tokens,
    )


def checked_teacher(
    config: TrainConfig, student: VisionLanguageModel, samples: Sequence[VisualSample]
) -> tuple[Teacher, PairReport]:
    """The teacher (or teachers) of the settings, each checked against the student on the samples that it will see."""
    wanted = config.teacher
    open_one = partial(open_teacher, config, student)
    # Without routes nobody asks for sources, and samples may be costly: the embedded ones are drawn when looked at.
    sources = [sample.source for sample in samples] if wanted.routes else [""]
    teacher = build_teacher(wanted.path, wanted.routes_by_source, sources=sources, open_one=open_one)
    reports, prompts = [], []
    for one, own in parties(teacher, samples):
        seen = first_usable(student, own)
        reports.append(check_pair(student, one, seen, by_text=wanted.align == "text"))
        prompts += student.encoder.encode_all(seen)[0]
    results = tuple(result for report in reports for result in report.results)
    shared = all(report.shared_prompts for report in reports)
    return with_shared_prompts(teacher, prompts), PairReport(results, shared)


def open_teacher(config: TrainConfig, student: VisionLanguageModel, path: str) -> Teacher:
    """One teacher: loaded, or connected to. Raises ModelError or TeacherError."""
    wanted = config.teacher
    if is_url(path):
        patience = {"timeout_seconds": wanted.timeout_seconds, "retries": wanted.retries}
        return connect(
            path,
            encoder=student.encoder,
            end_ids=student.eos_ids,
            token=os.environ.get(wanted.token_env),
            requests_in_flight=wanted.requests_in_flight,
            served_model=wanted.served_model,
            **patience,
        )
    sharded = config.distributed.shard_teacher
    place = "cpu" if sharded else wanted.device
    model = load_one(config, replace(wanted, path=path, routes=(), device=place))
    model.policy.requires_grad_(False)
    if sharded:
        compute = getattr(torch, wanted.compute)
        device, fetch_tokens = pick_device(wanted.device), config.distributed.fetch_tokens
        model = replace(model, filler=shard(model, device=device, compute=compute, fetch_tokens=fetch_tokens))
    local = LocalTeacher(model, rows_at_once=config.optim.rows_at_once)
    return span_teacher(local, student) if wanted.align == "text" else local


def load_one(config: TrainConfig, model: ModelConfig) -> VisionLanguageModel:
    images = config.images
    return load_model(
        model.path,
        **model.loading,
        min_pixels=images.min_pixels,
        max_pixels=images.max_pixels,
        max_prompt_tokens=config.rollout.max_prompt_tokens,
        allow_url=images.allow_url,
        instruction=config.data.instruction,
    )


def first_usable(model: VisionLanguageModel, samples: Sequence[VisualSample], num: int = 4) -> list[VisualSample]:
    """The first samples that become prompts: one damaged picture must not end a run. Raises DataError if none does."""
    prompts: list[Prompt] = []
    reasons: list[str] = []
    for index in range(len(samples)):
        encoded, why_not = model.encoder.encode_all([samples[index]])
        prompts += encoded
        reasons += why_not
        if len(prompts) == num:
            break
    if not prompts:
        raise DataError(f"none of the {len(samples)} rows to train on can be encoded: {reasons[0]}")
    return [prompt.sample for prompt in prompts]
