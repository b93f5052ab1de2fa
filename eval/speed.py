"""How fast a model answers: first token, each further token, whole problems; memory and FLOPs. Times in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from eval.flops import count_flops
from eval.speed_types import BatchSpeed, SpeedReport, Spread
from eval.timing import DEFAULT, MEMORY_NOTES, Run, SpeedSettings, device_name, encode, peak_memory, reset_peak, timed
from eval.types import Graded, Problem, Response, Verdict
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import Prompt, Rollout

ResponseGrader = Callable[[Response], Verdict]
"""The verdict on an answer, which may be cut off at the token limit (`Response.finish_reason`)."""


def measure_speed(
    model: VisionLanguageModel,
    problems: Sequence[Problem],
    prompt: Callable[[Problem], str],
    grade: ResponseGrader | None = None,
    *,
    settings: SpeedSettings = DEFAULT,
) -> SpeedReport:
    """Measure one model alone; see `measure_speeds`."""
    return measure_speeds([model], problems, prompt, grade, settings=settings)[0]


def measure_speeds(
    models: Sequence[VisionLanguageModel],
    problems: Sequence[Problem],
    prompt: Callable[[Problem], str],
    grade: ResponseGrader | None = None,
    *,
    settings: SpeedSettings = DEFAULT,
) -> list[SpeedReport]:
    """Measure models on the first problems, greedy, at each batch size, by the rollout engine that training uses.

    Models take turns within each repeat, so that a slow spell of the machine meets all of them. Decoding images and
    tokenising is timed apart (`preprocess_seconds_per_problem`). Raises `ValueError` where no problem can be shown to
    a model.
    """
    subjects = [_subject(model, problems[: settings.problems], prompt, settings) for model in models]
    for size in sorted(settings.batch_sizes):
        _measure_batch(subjects, size, settings)
    return [_report(subject, grade, settings) for subject in subjects]


@dataclass(frozen=True)
class _Runs:
    """The timed runs of one model at one batch size, by kind."""

    batch_size: int
    first: list[Run] = field(default_factory=list)
    fixed: list[Run] = field(default_factory=list)
    whole: list[Run] = field(default_factory=list)
    peaks: list[int | None] = field(default_factory=list)


@dataclass(frozen=True)
class _Subject:
    """A model that is measured, with what it is shown and the runs so far."""

    model: VisionLanguageModel
    problems: list[Problem]
    prompts: list[Prompt]
    failed: int
    preprocess: float
    runs: list[_Runs] = field(default_factory=list)


def _subject(
    model: VisionLanguageModel, chosen: Sequence[Problem], prompt: Callable[[Problem], str], settings: SpeedSettings
) -> _Subject:
    begin = settings.clock.wall()
    shown, prompts = encode(model, chosen, prompt)
    preprocess = (settings.clock.wall() - begin) / max(1, len(chosen))
    if not prompts:
        raise ValueError(f"speed of {model.path}: none of {len(chosen)} problems can be shown to the model")
    return _Subject(model, shown, prompts, len(chosen) - len(prompts), preprocess)


def _measure_batch(subjects: Sequence[_Subject], size: int, settings: SpeedSettings) -> None:
    """Append the runs at one batch size to every subject."""
    greedy: dict[str, Any] = {"n": 1, "seed": 0, "temperature": 0.0}
    for subject in subjects:
        subject.runs.append(_Runs(size))
        for _ in range(settings.warmup):
            endless = replace(subject.model.engine(rows_at_once=size), eos_ids=())
            endless.generate(subject.prompts[:size], max_new_tokens=settings.fixed_tokens, **greedy)
    for _ in range(settings.repeats):
        for subject in subjects:
            runs, device = subject.runs[-1], subject.model.policy.device
            prompts = subject.prompts[: settings.problems_alone] if size == 1 else subject.prompts
            engine = subject.model.engine(rows_at_once=size)
            endless = replace(engine, eos_ids=())
            reset_peak(device)
            for kind, used, tokens in (
                (runs.first, engine, 1),
                (runs.fixed, endless, settings.fixed_tokens),
                (runs.whole, engine, settings.max_new_tokens),
            ):
                call = partial(used.generate, prompts, max_new_tokens=tokens, **greedy)
                kind.append(timed(subject.model, settings.clock, call))
            runs.peaks.append(peak_memory(device))


def _report(subject: _Subject, grade: ResponseGrader | None, settings: SpeedSettings) -> SpeedReport:
    model, policy, prompts = subject.model, subject.model.policy, subject.prompts
    accuracies = [_accuracy(subject, runs, grade) for runs in subject.runs]
    batches = [_batch_speed(runs, right, settings) for runs, right in zip(subject.runs, accuracies, strict=True)]
    return SpeedReport(
        model=model.path,
        device=device_name(policy.device),
        dtype=str(policy.precision).removeprefix("torch."),
        threads=torch.get_num_threads(),
        min_pixels=model.encoder.min_pixels,
        max_pixels=model.encoder.max_pixels,
        max_new_tokens=settings.max_new_tokens,
        repeats=settings.repeats,
        warmup=settings.warmup,
        parameters=model.num_parameters,
        parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in policy.parameters()),
        mean_prompt_tokens=sum(len(item.ids) for item in prompts) / len(prompts),
        preprocess_seconds_per_problem=subject.preprocess,
        failed=subject.failed,
        accuracy=accuracies[-1],
        flops=count_flops(model, prompts[: settings.flop_problems], batches[-1].mean_output_tokens),
        memory_note=MEMORY_NOTES[policy.device.type == "cuda"],
        batches=tuple(batches),
    )


def _accuracy(subject: _Subject, runs: _Runs, grade: ResponseGrader | None) -> float | None:
    if grade is None:
        return None
    answers = runs.whole[-1].rollouts
    graded = grade_rollouts(subject.model, subject.problems[: len(answers)], answers, grade)
    return sum(item.correct for item in graded) / len(graded)


def grade_rollouts(
    model: VisionLanguageModel, problems: Sequence[Problem], rollouts: Sequence[Rollout], grade: ResponseGrader
) -> list[Graded]:
    """Verdicts on answers that lie side by side, equally many for each problem, in the order of `problems`."""
    n = len(rollouts) // len(problems)
    graded = []
    for index, rollout in enumerate(rollouts):
        response = Response(
            bench="",
            model=model.path,
            problem=problems[index // n],
            sample=index % n,
            key="",
            prompt=rollout.prompt.sample.question,
            text=model.tokenizer.decode(rollout.response_ids, skip_special_tokens=True),
            finish_reason=rollout.finish_reason,
            tokens=len(rollout.response_ids),
        )
        graded.append(Graded(response, grade(response)))
    return graded


def _batch_speed(runs: _Runs, accuracy: float | None, settings: SpeedSettings) -> BatchSpeed:
    answers = runs.whole[-1].rollouts
    count, batches = len(answers), -(-len(answers) // runs.batch_size)
    tokens = sum(len(answer.response_ids) for answer in answers)
    steps = batches * (settings.fixed_tokens - 1)
    seconds = Spread.of([run.wall / count for run in runs.whole])
    later = [(long.wall - short.wall) / steps for long, short in zip(runs.fixed, runs.first, strict=True)]
    peaks = [peak for peak in runs.peaks if peak is not None]
    return BatchSpeed(
        batch_size=runs.batch_size,
        problems=count,
        time_to_first_token=Spread.of([run.wall / batches for run in runs.first]),
        time_per_output_token=Spread.of(later),
        tokens_per_second=Spread.of([tokens / run.wall for run in runs.whole]),
        seconds_per_problem=seconds,
        cpu_seconds_per_problem=Spread.of([run.cpu / count for run in runs.whole]),
        fixed_tokens=settings.fixed_tokens,
        fixed_seconds_per_problem=Spread.of([run.wall / count for run in runs.fixed]),
        fixed_cpu_seconds_per_problem=Spread.of([run.cpu / count for run in runs.fixed]),
        mean_output_tokens=tokens / count,
        correct_per_second=None if accuracy is None else accuracy / seconds.median,
        peak_memory_bytes=max(peaks, default=None),
    )
