"""From a configuration to a full report: every check, in the order in which a failure costs least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from reopold_vl.assemble import load_splits
from reopold_vl.assemble_models import first_usable, load_one, load_student, open_teacher
from reopold_vl.check import scoring, timing
from reopold_vl.check.answers import answers_end, prompts_fit
from reopold_vl.check.budget import budget
from reopold_vl.check.pair import TOKENS, examine_pair
from reopold_vl.check.result import Report, Result
from reopold_vl.config import TrainConfig
from reopold_vl.config.teacher import is_url
from reopold_vl.models import VisionLanguageModel
from reopold_vl.splits import Splits
from reopold_vl.teachers import Teacher
from reopold_vl.teachers.build import build_teacher, with_shared_prompts
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import parties
from reopold_vl.types import Prompt, Rollout, VisualSample

ROWS = 32  # of the data that are encoded
TRIED = 4  # of them that go through the models
TIMED = 8  # of them that are answered to the end, and timed
OF_STUDENT = ("turn end", "self-teacher", "engine", "student sees")  # said once, whatever the number of teachers


def check_run(config: TrainConfig, *, compare_teacher: str | None = None, quick: bool = False) -> Report:
    """All checks of a run of these settings; both models are loaded once, and not at all if they cannot fit.

    `compare_teacher` is a local copy of the server's model. `quick` leaves out sampled answers and the timed step.
    Raises ValueError (one line) for data or models that cannot be loaded.
    """
    title = f"{config.student.path}  learns from  {config.teacher.path}"
    before = budget(config)
    memory = before.results()
    if any(result.status == "fail" for result in memory):
        rest = Result("all others", "skip", "nothing was loaded: the settings do not fit")
        return Report(title, (*memory, rest))
    if before.plan.shards > 1 and before.whole_bytes > before.available[before.device]:
        told = "one device does not hold both models whole: check the wiring of a smaller student of the same family"
        return Report(title, (*memory, Result("all others", "skip", told)))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    splits, student = load_splits(config), load_student(config)
    tried = splits.train[:ROWS]
    prompts, reasons = student.encoder.encode_all(tried)
    lengths = [len(prompt.ids) for prompt in prompts]
    fit = prompts_fit(lengths, reasons, max_prompt_tokens=config.rollout.max_prompt_tokens)
    if not prompts:
        return Report(title, (fit, *memory, Result("all others", "skip", "no prompt can be made")))
    teacher, pairs = examined_teacher(config, student, splits.train)
    few = prompts[:TRIED]
    results = [fit, *pairs, *_server(config, student, teacher, few, compare_teacher)]
    results += before.with_prompts(prompts).results()
    if quick:
        results += [Result(name, "skip", "left out by --quick") for name in ("answers end", "time")]
    elif any(result.status == "fail" for result in results):
        results += [Result(name, "skip", "not tried: mend the red lines first") for name in ("answers end", "time")]
    else:
        results += _sampled(config, student, teacher, prompts[:TIMED], splits)
    return Report(title, tuple(results))


def examined_teacher(
    config: TrainConfig, student: VisionLanguageModel, samples: Sequence[VisualSample]
) -> tuple[Teacher, list[Result]]:
    """The teacher of the settings, and the results of the pair; of each pair where samples are routed to several."""
    wanted = config.teacher
    sources = [sample.source for sample in samples] if wanted.routes else [""]
    open_one = partial(open_teacher, config, student)
    teacher = build_teacher(wanted.path, wanted.routes_by_source, sources=sources, open_one=open_one)
    several = list(parties(teacher, samples))
    results: list[Result] = []
    prompts: list[Prompt] = []
    for one, own in several:
        seen = first_usable(student, own)
        found = examine_pair(student, one, seen, by_text=wanted.align == "text").results
        for result in found:
            if result.name in OF_STUDENT:
                results += [result] if one is several[0][0] else []
            else:
                named = f"{one.name}: {result.measured}" if len(several) > 1 else result.measured
                results.append(replace(result, measured=named))
        prompts += student.encoder.encode_all(seen)[0]
    failed = any(result.status == "fail" for result in results)
    return teacher if failed else with_shared_prompts(teacher, prompts), results


def _sampled(
    config: TrainConfig, student: VisionLanguageModel, teacher: Teacher, prompts: Sequence[Prompt], splits: Splits
) -> list[Result]:
    """Whether answers end, and how long a run takes: the two need the length of answers."""
    rollout = config.rollout
    engine = student.engine(rows_at_once=rollout.rows_at_once)
    answers = engine.generate(prompts, n=rollout.n, max_new_tokens=rollout.max_new_tokens, seed=config.seed)
    rates = timing.measure(student, teacher, prompts, n=rollout.n, scored_again=not engine.exact)
    found = _extrapolated(config, student, teacher, rates, answers, splits)
    return [
        answers_end(answers, max_new_tokens=rollout.max_new_tokens),
        timing.time_result(found, steps=config.steps),
    ]


def _extrapolated(
    config: TrainConfig,
    student: VisionLanguageModel,
    teacher: Teacher,
    rates: timing.Rates,
    answers: Sequence[Rollout],
    splits: Splits,
) -> timing.StepTime:
    tokens = [len(answer.response_ids) for answer in answers]
    cut = any(answer.finish_reason == "length" for answer in answers)
    measured = sum(map(config.measures, range(config.steps + 1))) * len(splits.validation)
    size = teacher.num_parameters
    return timing.extrapolate(
        rates,
        n=config.rollout.n,
        prompts_per_step=config.prompts_per_step,
        rollout_rows=config.rollout.rows_at_once,
        learn_rows=config.optim.rows_at_once,
        answer_tokens=sum(tokens) / len(tokens),
        longest_answer=config.rollout.max_new_tokens if cut else max(tokens),
        steps=config.steps,
        graded_answers=measured + 2 * len(splits.test),
        teacher_answers=len(splits.test) + len(splits.validation),
        teacher_cost=size / student.num_parameters if size else 1.0,
    )


def _server(
    config: TrainConfig,
    student: VisionLanguageModel,
    teacher: Teacher,
    prompts: Sequence[Prompt],
    compare_teacher: str | None,
) -> list[Result]:
    """A teacher behind a URL against a local copy, where one is named."""
    if not is_url(config.teacher.path):
        return []
    if compare_teacher is None:
        told = "the teacher is a server; --compare-teacher PATH compares it with a local copy"
        return [Result("server", "skip", told)]
    copy = load_one(config, replace(config.teacher, path=compare_teacher))
    rollouts = student.engine(rows_at_once=len(prompts)).generate(prompts, n=1, max_new_tokens=TOKENS, seed=0)
    ours = LocalTeacher(copy, rows_at_once=len(rollouts)).score(rollouts).logprobs
    theirs = teacher.score(rollouts).logprobs
    mask = torch.arange(ours.shape[1]) < torch.tensor([[len(rollout.response_ids)] for rollout in rollouts])
    precision = str(copy.policy.precision).removeprefix("torch.")
    return [scoring.server_gap(float((ours - theirs)[mask].abs().mean()), precision=precision)]
