"""Is this pair wired right? All checks of a student and a teacher that are loaded; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image, ImageOps

from reopold_vl.check import pixels, scoring, tokens
from reopold_vl.check.result import Result
from reopold_vl.images import load_image
from reopold_vl.models import ModelError, VisionLanguageModel
from reopold_vl.prompts import PromptEncoder, PromptError, messages, render_chat
from reopold_vl.score import engine_gaps, score_tokens
from reopold_vl.teachers import SampleView, Teacher
from reopold_vl.teachers.local import LocalTeacher, view_of
from reopold_vl.types import Prompt, Rollout, VisualSample

TOKENS = 8  # of each answer that is scored: enough to see a difference, few enough to be quick
BLIND = VisualSample("head", "How many are there?")


@dataclass(frozen=True)
class PairReport:
    """The results, and whether the teacher takes the student's prompts as they are (`LocalTeacher.share_prompts`)."""

    results: tuple[Result, ...]
    shared_prompts: bool

    @property
    def first_failure(self) -> Result | None:
        return next((result for result in self.results if result.status == "fail"), None)

    def __str__(self) -> str:
        shared = "identical" if self.shared_prompts else "encoded apart for the teacher"
        ok = sum(result.status == "ok" for result in self.results)
        others = [
            f"not checked: {result.name} ({result.measured})" for result in self.results if result.status == "skip"
        ]
        lines = [f"{ok} checks are green; image tensors {shared}", *others]
        return "; ".join([*lines, *(str(result) for result in self.results if result.status == "warn")])


def check_pair(
    student: VisionLanguageModel, teacher: Teacher, samples: Sequence[VisualSample], *, by_text: bool = False
) -> PairReport:
    """`examine_pair`, for a run that must not start otherwise: raises ModelError with the first failure."""
    report = examine_pair(student, teacher, samples, by_text=by_text)
    if report.first_failure is not None:
        raise ModelError(str(report.first_failure))
    return report


def examine_pair(
    student: VisionLanguageModel, teacher: Teacher, samples: Sequence[VisualSample], *, by_text: bool = False
) -> PairReport:
    """Tokenizer, end tokens, chat template, image grid, sight and scoring on a few samples.

    `by_text`: the teacher may have another tokenizer (`teacher.align` text). What a failure leaves without sense is
    skipped and says so.
    """
    results = token_results(student, teacher, by_text=by_text)
    try:
        ours = [view_of(student.encoder, sample) for sample in samples]
        theirs = _views(teacher, samples)
    except ValueError as error:
        return PairReport((*results, unencodable(error), *_skipped("no prompt can be made")), shared_prompts=False)
    results += prompt_results(student, teacher, samples, ours, theirs, by_text=by_text)
    failed = [result for result in results if result.status == "fail"]
    if any(result.name in ("tokenizer", "image tokens") for result in failed):
        return PairReport((*results, *_skipped(f"{failed[0].name} first")), shared_prompts=False)
    prompts = [student.encoder(sample) for sample in samples]
    rollouts = student.engine(rows_at_once=len(prompts)).generate(prompts, n=1, max_new_tokens=TOKENS, seed=0)
    shared = not by_text and all(teacher.same_prompt(prompt) for prompt in prompts)
    results += [*score_results(student, rollouts), head_result(student, teacher)]
    results += sight_results(student, teacher, rollouts)
    return PairReport(tuple(results), shared)


def first_difference(one: VisionLanguageModel, other: Teacher, sample: VisualSample) -> Result | None:
    """What keeps two models from reading one another's answers: tokenizer, end tokens or chat template; None if they
    can."""
    theirs = _views(other, [sample])
    shown = None if theirs is None else [view.text for view in theirs]
    found = [*token_results(one, other)[:2], tokens.template([view_of(one.encoder, sample).text], shown)]
    return next((result for result in found if result.status == "fail"), None)


def token_results(student: VisionLanguageModel, teacher: Teacher, *, by_text: bool = False) -> list[Result]:
    """Tokenizer and end tokens of both; no prompt is needed."""
    tokenizer = student.tokenizer
    named: Callable[[int], str] = tokenizer.convert_ids_to_tokens
    same = tokens.vocabulary(tokenizer.get_vocab(), teacher.vocabulary(), by_text=by_text)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    results = [
        replace(same, measured=f"{same.measured}{_padding(student, teacher)}" if same.status == "ok" else same.measured)
    ]
    results.append(tokens.end_tokens(student.eos_ids, teacher.eos_ids, named=named, by_text=by_text))
    following = after_an_answer(student.processor)
    return [*results, tokens.turn_end(student.eos_ids, following, special, named)]


def prompt_results(
    student: VisionLanguageModel,
    teacher: Teacher,
    samples: Sequence[VisualSample],
    ours: Sequence[SampleView],
    theirs: Sequence[SampleView] | None,
    *,
    by_text: bool,
) -> list[Result]:
    """Chat template and image tokens."""
    texts = None if theirs is None else [view.text for view in theirs]
    same = tokens.template([view.text for view in ours], texts, by_text=by_text)
    for sample, *views in zip(samples, ours, theirs or ours, strict=True):
        turns = messages(sample, student.encoder.instruction)
        parts = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
        for whose, view in zip(("student", "teacher"), views, strict=True):
            same = (tokens.whole_text(view.text, parts, whose=whose) if same.status != "fail" else None) or same
    factor = teacher.image_factor
    alike = factor is not None and factor == student.encoder.factor
    return [same, pixels.image_tokens(ours, theirs, same_factor=alike)]


def score_results(student: VisionLanguageModel, rollouts: Sequence[Rollout]) -> list[Result]:
    """The student against itself: as its own teacher, and its sampler against the trainer's forward pass."""
    precision = str(student.policy.precision).removeprefix("torch.")
    scored = score_tokens(student, rollouts, rows_at_once=len(rollouts)).logprobs
    alone = LocalTeacher(student, rows_at_once=1).score(rollouts).logprobs
    mask = torch.arange(scored.shape[1]) < torch.tensor([[len(rollout.response_ids)] for rollout in rollouts])
    reward = float((alone - scored)[mask].abs().mean())
    gap = float(engine_gaps(rollouts, scored).mean())
    exact = student.engine(rows_at_once=1).exact
    return [
        scoring.self_teacher(reward, precision=precision),
        scoring.engine_gap(gap, precision=precision, exact=exact),
    ]


def head_result(student: VisionLanguageModel, teacher: Teacher) -> Result:
    """Whether the log-probs of both, as far as they are computed in this process, are those of the models."""
    models = {"student": student}
    if isinstance(teacher, LocalTeacher) and teacher.model.filler is None:  # else it is cut up over processes
        models["teacher"] = teacher.model
    try:
        gaps = {whose: model.policy.head_gap(model.encoder(BLIND)) for whose, model in models.items()}
    except ValueError as error:
        return Result("head", "skip", f"a question without a picture cannot be encoded: {_line(error)}")
    return scoring.head(gaps, precision=str(student.policy.precision).removeprefix("torch."))


def sight_results(student: VisionLanguageModel, teacher: Teacher, rollouts: Sequence[Rollout]) -> list[Result]:
    """Student and teacher look at the picture; teachers get the changed one through the samples."""
    pictured = [rollout for rollout in rollouts if rollout.prompt.sample.images] or list(rollouts)
    encoder = student.encoder
    versions = [
        pictured,
        with_pictures(pictured, encoder, ImageOps.invert),
        with_pictures(pictured, encoder, other_picture),
    ]
    blind = not any(rollout.prompt.sample.images for rollout in pictured)
    results = []
    own = LocalTeacher(student, rows_at_once=len(pictured))
    for whose, model in (("student", own), ("teacher", teacher)):
        try:
            scores = [model.score(version).logprobs for version in (versions[:1] * 3 if blind else versions)]
        except ValueError as error:
            advice = "mend the teacher, or name another with --teacher.path"
            results.append(Result(f"{whose} sees", "fail", f"cannot score: {_line(error)}", advice))
            continue
        if blind and not bool(scores[0].isnan().any()):
            scores = [score[:0] for score in scores]
        results.append(pixels.pixels(whose, *scores))
    return results


def with_pictures(
    rollouts: Sequence[Rollout], encoder: PromptEncoder, change: Callable[[Image.Image], Image.Image]
) -> list[Rollout]:
    """The same answers to prompts with changed pictures, in the sample and in the tensors. Sizes must stay."""
    changed: dict[int, Prompt] = {}
    for rollout in rollouts:
        sample = rollout.prompt.sample
        if id(rollout.prompt) not in changed and sample.images:
            pictures = [change(load_image(image, allow_url=encoder.allow_url)) for image in sample.images]
            changed[id(rollout.prompt)] = encoder(replace(sample, images=tuple(pictures)))
    return [replace(rollout, prompt=changed.get(id(rollout.prompt), rollout.prompt)) for rollout in rollouts]


def other_picture(image: Image.Image) -> Image.Image:
    """A picture of the same size that has nothing to do with `image`: coarse coloured noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
    return Image.frombytes("RGB", (8, 8), bytes(coarse.flatten().tolist())).resize(image.size, Image.Resampling.NEAREST)


def after_an_answer(processor: Any) -> list[int]:
    """The ids of what the chat template writes behind an answer, up to the next question; none where it cannot."""
    question, answer, then = "What is it?", "Four of them", "And now?"
    turns = [("user", question), ("assistant", answer), ("user", then)]
    chat = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    try:
        text = render_chat(processor, chat)
    except PromptError:
        return []
    return processor.tokenizer(text.partition(answer)[2].partition(then)[0], add_special_tokens=False)["input_ids"]


def unencodable(error: Exception) -> Result:
    """The failure of a sample that a template or processor broke on."""
    advice = "give the model its own chat_template.jinja and processor files"
    return Result("chat template", "fail", f"a sample cannot be encoded: {_line(error)}", advice)


def _views(teacher: Teacher, samples: Sequence[VisualSample]) -> list[SampleView] | None:
    views = [teacher.view(sample) for sample in samples]
    told = [view for view in views if view is not None]
    return told if len(told) == len(views) else None


def _padding(student: VisionLanguageModel, teacher: Teacher) -> str:
    """The rows of both embedding matrices, where both are at hand and differ."""
    if not isinstance(teacher, LocalTeacher):
        return ""
    rows = [model.policy.model.get_output_embeddings().weight.shape[0] for model in (student, teacher.model)]
    return "" if rows[0] == rows[1] else f"; embeddings padded to {rows[0]:,} and {rows[1]:,} rows, which is allowed"


def _skipped(why: str) -> list[Result]:
    names = ("self-teacher", "engine", "head", "student sees", "teacher sees")
    return [Result(name, "skip", f"not tried: {why}") for name in names]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
