"""Two models' speed side by side: at fixed output length, as they really answer, and at matched accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from eval.sampling import Majority, by_problem, maj_at_k, smallest_k_reaching
from eval.speed import ResponseGrader, grade_rollouts, measure_speeds
from eval.speed_types import AccuracyTime, MatchedAccuracy, PairSpeed, SpeedReport, SpeedUps, Spread
from eval.timing import DEFAULT, Run, SpeedSettings, encode, timed
from eval.types import Graded, Problem
from reopold_vl.models import VisionLanguageModel
from reopold_vl.report.stats import normal_quantile, wilson_interval
from reopold_vl.types import Prompt, Rollout

_SAME = ("device", "dtype", "threads", "min_pixels", "max_pixels", "max_new_tokens", "repeats", "warmup")


@dataclass(frozen=True)
class Pair:
    """Two models that are compared, and what both are asked and graded by."""

    student: VisionLanguageModel
    teacher: VisionLanguageModel
    problems: Sequence[Problem]
    prompt: Callable[[Problem], str]
    grade: ResponseGrader


@dataclass(frozen=True)
class Votes:
    """The numbers of samples that the student's majority votes are tried with, and how samples are drawn.

    Raises `ValueError` for a number below 1 or a temperature that is not above 0.
    """

    samples: tuple[int, ...] = (1, 3, 5, 7, 9)
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.samples or min(self.samples) < 1 or self.temperature <= 0:
            raise ValueError(
                f"samples is {self.samples} at temperature {self.temperature}: allowed are numbers of 1 or more, drawn "
                "at a temperature above 0"
            )


def measure_pair(pair: Pair, *, settings: SpeedSettings = DEFAULT, votes: Votes | None = Votes()) -> PairSpeed:
    """All three speed-ups of a pair on the same problems, words, pixel budget, dtype and batch sizes.

    Without `votes` the comparison at matched accuracy is left out. Raises `ValueError` where the models were not
    measured under the same conditions.
    """
    models = [pair.student, pair.teacher]
    reports = measure_speeds(models, pair.problems, pair.prompt, pair.grade, settings=settings)
    matched = matched_accuracy(pair, settings=settings, votes=votes) if votes else None
    return PairSpeed(reports[0], reports[1], speed_ups(*reports), matched)


def speed_ups(student: SpeedReport, teacher: SpeedReport) -> SpeedUps:
    """Teacher / student; raises `ValueError` naming the first condition in which the two measurements differ."""
    for name in _SAME:
        if getattr(student, name) != getattr(teacher, name):
            raise ValueError(
                f"speeds cannot be compared: {name} is {getattr(student, name)} for {student.model} and "
                f"{getattr(teacher, name)} for {teacher.model}"
            )
    pairs = [(ours, teacher.batch(ours.batch_size)) for ours in student.batches]
    for ours, theirs in pairs:
        if (ours.problems, ours.fixed_tokens) != (theirs.problems, theirs.fixed_tokens):
            raise ValueError(
                f"speeds cannot be compared: at batch size {ours.batch_size} {student.model} has {ours.problems} "
                f"problems of {ours.fixed_tokens} tokens and {teacher.model} {theirs.problems} of {theirs.fixed_tokens}"
            )

    def ratios(field: str) -> dict[int, float]:
        return {a.batch_size: getattr(b, field).median / getattr(a, field).median for a, b in pairs}

    return SpeedUps(
        fixed_length=ratios("fixed_seconds_per_problem"),
        fixed_length_cpu=ratios("fixed_cpu_seconds_per_problem"),
        per_problem=ratios("seconds_per_problem"),
        per_problem_cpu=ratios("cpu_seconds_per_problem"),
        parameters=teacher.parameters / student.parameters,
        flops=teacher.flops.per_problem / student.flops.per_problem,
    )


def matched_accuracy(pair: Pair, *, settings: SpeedSettings = DEFAULT, votes: Votes = Votes()) -> MatchedAccuracy:
    """The cheapest student that is as accurate as the teacher's greedy answer, and the time of both.

    Tried are the student's greedy answer and then majority votes over each k of `votes.samples` answers (maj@k,
    expected over all subsets of the largest k). A vote's time is that of really generating k answers, each prompt
    encoded and prefilled once for its k. Accuracies and times are those of the first `settings.problems` problems, at
    the largest batch size: as many answers at once whatever k is. Raises `ValueError` where no problem can be shown to
    both models.
    """
    student, teacher, grade = pair.student, pair.teacher, pair.grade
    shown, ours, theirs = _shown_to_both(pair, settings.problems)
    tries = [_Try(teacher, theirs, 1, 0.0), _Try(student, ours, 1, 0.0)]
    tries += [_Try(student, ours, k, votes.temperature) for k in sorted(set(votes.samples))]
    first, second, *voted = runs = _measure(tries, settings, votes.seed)
    points = [
        _greedy_point("teacher", grade_rollouts(teacher, shown, first[-1].rollouts, grade), first),
        _greedy_point("student", grade_rollouts(student, shown, second[-1].rollouts, grade), second),
    ]
    # All k are judged by the largest draw: its subsets are answers of the same kind, and far more of them.
    graded = by_problem(grade_rollouts(student, shown, runs[-1][-1].rollouts, grade)).values()
    points += [
        _vote_point("student", maj_at_k(graded, item.samples), times)
        for item, times in zip(tries[2:], voted, strict=True)
    ]
    return _outcome(points, len(shown), max(settings.batch_sizes), votes.temperature)


def _shown_to_both(pair: Pair, most: int) -> tuple[list[Problem], list[Prompt], list[Prompt]]:
    """Those of the first `most` problems that both can be shown, with the student's and the teacher's prompts."""
    problems = pair.problems[:most]
    ours, theirs = (
        {problem.id: (problem, item) for problem, item in zip(*encode(model, problems, pair.prompt), strict=True)}
        for model in (pair.student, pair.teacher)
    )
    both = [name for name in ours if name in theirs]
    if not both:
        raise ValueError(f"matched accuracy: none of {len(problems)} problems can be shown to both models")
    return [ours[name][0] for name in both], [ours[name][1] for name in both], [theirs[name][1] for name in both]


@dataclass(frozen=True)
class _Try:
    """One way to answer: a model, its prompts, answers for each, temperature."""

    model: VisionLanguageModel
    prompts: list[Prompt]
    samples: int
    temperature: float


def _measure(tries: Sequence[_Try], settings: SpeedSettings, seed: int) -> list[list[Run]]:
    """Timed runs of each try after its warm-up; the tries take turns within each repeat."""
    size = max(settings.batch_sizes)

    def answer(item: _Try, prompts: list[Prompt]) -> list[Rollout]:
        return item.model.engine(rows_at_once=max(size, item.samples)).generate(
            prompts,
            n=item.samples,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            temperature=item.temperature,
        )

    for item in tries:
        for _ in range(settings.warmup):
            answer(item, item.prompts[: max(1, size // item.samples)])
    runs: list[list[Run]] = [[] for _ in tries]
    for _ in range(settings.repeats):
        for index, item in enumerate(tries):
            runs[index].append(timed(item.model, settings.clock, partial(answer, item, item.prompts)))
    return runs


def _greedy_point(model: str, graded: Sequence[Graded], runs: Sequence[Run]) -> AccuracyTime:
    right = sum(item.correct for item in graded)
    interval = wilson_interval(right, len(graded))
    return AccuracyTime(model, 1, True, right / len(graded), interval, *_times(runs, len(graded)))


def _vote_point(model: str, vote: Majority, runs: Sequence[Run]) -> AccuracyTime:
    reach = normal_quantile() * vote.standard_error
    interval = max(0.0, vote.value - reach), min(1.0, vote.value + reach)
    return AccuracyTime(model, vote.k, False, vote.value, interval, *_times(runs, vote.problems))


def _times(runs: Sequence[Run], problems: int) -> tuple[Spread, Spread]:
    return Spread.of([run.wall / problems for run in runs]), Spread.of([run.cpu / problems for run in runs])


def _outcome(points: Sequence[AccuracyTime], problems: int, batch_size: int, temperature: float) -> MatchedAccuracy:
    """`points` are the teacher's, the student's greedy one, and the votes by ascending k."""
    teacher, greedy, *votes = points
    target = f"the teacher's {teacher.accuracy:.1%}"
    k = smallest_k_reaching(teacher.accuracy, {point.samples: point.accuracy for point in votes})
    if teacher.accuracy == 0:
        found, outcome = None, "the teacher has no answer right: there is no accuracy to match"
    elif greedy.accuracy >= teacher.accuracy:
        found = greedy
        outcome = f"the student's single greedy answer, {greedy.accuracy:.1%}, is no worse than {target}"
    elif k is not None:
        found = next(point for point in votes if point.samples == k)
        outcome = f"the student needs a vote of {k} samples: {found.accuracy:.1%} against {target}"
    else:
        found = None
        best = max(points[1:], key=lambda point: point.accuracy)
        reached = f"{best.accuracy:.1%} (sampled at temperature {temperature})"
        outcome = f"no number of samples tried reaches {target}: the best is {best.label} with {reached}"
    return MatchedAccuracy(
        problems=problems,
        batch_size=batch_size,
        temperature=temperature,
        teacher_accuracy=teacher.accuracy,
        samples=found.samples if found else None,
        greedy=found is greedy,
        speed_up=teacher.seconds_per_problem.median / found.seconds_per_problem.median if found else None,
        cpu_speed_up=teacher.cpu_seconds_per_problem.median / found.cpu_seconds_per_problem.median if found else None,
        outcome=outcome,
        points=tuple(points),
    )
