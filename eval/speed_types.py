"""What a speed measurement says, as plain data (`dataclasses.asdict` makes JSON of it); nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements with their quartiles (the interquartile range is `high` - `low`)."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Quartiles by linear interpolation; raises `ValueError` without values."""
        if not values:
            raise ValueError("no measurements: a median needs at least one")
        ordered = sorted(values)

        def at(share: float) -> float:
            position = share * (len(ordered) - 1)
            below = int(position)
            above = min(below + 1, len(ordered) - 1)
            return ordered[below] + (position - below) * (ordered[above] - ordered[below])

        return cls(median(ordered), at(0.25), at(0.75), tuple(values))


@dataclass(frozen=True)
class BatchSpeed:
    """One model at one batch size, greedy; times in seconds, medians over repeats after warm-up.

    `time_to_first_token` is what one batch waits for its first token: collating, vision tower, prefill.
    `time_per_output_token` is one decoding step of a batch, from the runs of fixed length. `seconds_per_problem` and
    `tokens_per_second` are those of answers that end where the model ends them (or at the limit), EOS counted;
    `fixed_seconds_per_problem` is for exactly `fixed_tokens` tokens each. The `cpu_` fields are the process's CPU
    time, which other work on the machine disturbs less than the wall clock. `correct_per_second` is None without a
    grader. `peak_memory_bytes` is None where it is not measured (see `SpeedReport.memory_note`).
    """

    batch_size: int
    problems: int
    time_to_first_token: Spread
    time_per_output_token: Spread
    tokens_per_second: Spread
    seconds_per_problem: Spread
    cpu_seconds_per_problem: Spread
    fixed_tokens: int
    fixed_seconds_per_problem: Spread
    fixed_cpu_seconds_per_problem: Spread
    mean_output_tokens: float
    correct_per_second: float | None
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class FlopCount:
    """Floating point operations for one problem (a multiplication and an addition are two), at batch size 1.

    `prefill` covers the vision tower, the prompt and the first token's logits; `per_problem` the whole answer of
    `output_tokens` tokens, as counted by torch on short runs and continued exactly (see `eval.flops`). `estimate` is
    the rule of thumb 2 * parameters * (prompt + output tokens), for comparison.
    """

    prefill: float
    per_problem: float
    estimate: float
    output_tokens: float


@dataclass(frozen=True)
class SpeedReport:
    """What one model takes, and the conditions it was measured under. `failed` counts problems it cannot be shown."""

    model: str
    device: str
    dtype: str
    threads: int
    min_pixels: int
    max_pixels: int
    max_new_tokens: int
    repeats: int
    warmup: int
    parameters: int
    parameter_bytes: int
    mean_prompt_tokens: float
    preprocess_seconds_per_problem: float
    failed: int
    accuracy: float | None
    flops: FlopCount
    memory_note: str
    batches: tuple[BatchSpeed, ...]

    def batch(self, batch_size: int) -> BatchSpeed:
        """The measurements at one batch size; raises `ValueError` naming the sizes there are."""
        for found in self.batches:
            if found.batch_size == batch_size:
                return found
        raise ValueError(f"batch size {batch_size}: measured are {[found.batch_size for found in self.batches]}")


@dataclass(frozen=True)
class AccuracyTime:
    """A point of the picture: one way to answer, with its accuracy (95 % interval) and its time per problem.

    `samples` is 1 for one greedy answer, else the k of maj@k (k = 1 by sampling has `greedy` false).
    """

    model: str
    samples: int
    greedy: bool
    accuracy: float
    interval: tuple[float, float]
    seconds_per_problem: Spread
    cpu_seconds_per_problem: Spread

    @property
    def label(self) -> str:
        return f"{self.model}, greedy" if self.greedy else f"{self.model}, maj@{self.samples}"


@dataclass(frozen=True)
class MatchedAccuracy:
    """Speed-up at matched accuracy: the teacher's greedy answer against the cheapest student that is as accurate.

    `samples` is that student's number of samples (1 with `greedy` true: its greedy answer is enough), None where none
    of those tried gets there; `outcome` says it in a sentence. Ratios are teacher / student, None without a student;
    below 1 the student needs more time than the teacher. Accuracies are point estimates on `problems` problems.
    """

    problems: int
    batch_size: int
    temperature: float
    teacher_accuracy: float
    samples: int | None
    greedy: bool
    speed_up: float | None
    cpu_speed_up: float | None
    outcome: str
    points: tuple[AccuracyTime, ...]


@dataclass(frozen=True)
class SpeedUps:
    """Teacher's time over student's, by batch size: at the same number of tokens, and as the models really answer."""

    fixed_length: Mapping[int, float]
    fixed_length_cpu: Mapping[int, float]
    per_problem: Mapping[int, float]
    per_problem_cpu: Mapping[int, float]
    parameters: float
    flops: float


@dataclass(frozen=True)
class PairSpeed:
    """All of one pair's speed: both models, their ratios, and the comparison at matched accuracy."""

    student: SpeedReport
    teacher: SpeedReport
    speed_ups: SpeedUps
    matched: MatchedAccuracy | None
