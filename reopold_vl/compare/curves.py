"""From the runs' metrics to learning curves, and from curves to the samples that an accuracy costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AXES = ("rollouts", "tokens", "cpu_seconds")


@dataclass(frozen=True)
class Curve:
    """One run's held-out accuracy at its evaluation points, with what had been spent by then (the start is 0)."""

    seed: int
    accuracy: tuple[float, ...]
    rollouts: tuple[float, ...]
    tokens: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


@dataclass(frozen=True)
class Reached:
    """What it took to reach an accuracy, over seeds: a median with its interval; `censored` runs never did."""

    median: float
    low: float
    high: float
    censored: int
    total: int

    def __str__(self) -> str:
        if math.isinf(self.median):
            return f"not reached ({self.censored} of {self.total} runs never did)"
        if self.total == 1:
            return f"{self.median:,.0f}"
        high = "never" if math.isinf(self.high) else f"{self.high:,.0f}"
        return f"{self.median:,.0f} [{self.low:,.0f}, {high}]" + (f", {self.censored} never" if self.censored else "")


def curve_of(records: Sequence[Mapping[str, Any]], seed: int, *, without_scores: bool = False) -> Curve:
    """The curve that a run's metrics.jsonl holds; raises ValueError where nothing was measured on the way.

    `without_scores` leaves the teacher's scoring (`seconds/teacher_cpu`) out of the CPU seconds, where it was for the
    log alone.
    """
    tokens = seconds = 0.0
    points: list[tuple[float, float, float, float]] = []
    for record in records:
        count = record.get("rollout/total", 0)
        if "rollout/tokens" in record:
            tokens += record["rollout/tokens"]
        seconds += record.get("seconds/cpu", 0.0) - (record.get("seconds/teacher_cpu", 0.0) if without_scores else 0.0)
        if "validation/accuracy" in record:
            points.append((record["validation/accuracy"], count, tokens, seconds))
    if not points:
        raise ValueError(f"the run of seed {seed} has no evaluation points (data.validation_rows or eval_every is 0)")
    accuracy, rollouts, used, cpu = (tuple(map(float, column)) for column in zip(*points, strict=True))
    return Curve(seed, accuracy, rollouts, used, cpu)


def cost_of(curve: Curve, accuracy: float, axis: str = "rollouts") -> float:
    """What had been spent when the curve first reached `accuracy`, between points on a straight line; inf if never.

    The first crossing counts, also where the curve falls again. Held-out accuracy is noisy, so this flatters every
    method alike; evaluation points must be the same for all.
    """
    spent = getattr(curve, axis)
    if curve.accuracy[0] >= accuracy:
        return spent[0]
    for index in range(1, len(spent)):
        before, after = curve.accuracy[index - 1], curve.accuracy[index]
        if after >= accuracy:
            part = (accuracy - before) / (after - before)
            return spent[index - 1] + part * (spent[index] - spent[index - 1])
    return math.inf


def reached(curves: Sequence[Curve], accuracy: float, axis: str = "rollouts", *, resamples: int = 10_000) -> Reached:
    """Median cost over seeds with a 95 % bootstrap interval; runs that never got there count as infinitely dear."""
    costs = np.array([cost_of(curve, accuracy, axis) for curve in curves])
    low, high = bootstrap(costs, median, resamples=resamples)
    return Reached(float(median(costs)), low, high, int(np.isinf(costs).sum()), len(costs))


def cost_ratio(
    ours: Sequence[Curve], theirs: Sequence[Curve], accuracy: float, axis: str = "rollouts", *, resamples: int = 10_000
) -> tuple[float, float, float]:
    """How many times more `theirs` spend than `ours` (medians), with a 95 % interval over both sets of seeds.

    inf where they never reach it and we do, 0 where we never do and they do; NaN where neither does, or we are there
    from the start. Seeds are resampled independently, and draws without a ratio are left out.
    """
    mine = np.array([cost_of(curve, accuracy, axis) for curve in ours])
    other = np.array([cost_of(curve, accuracy, axis) for curve in theirs])
    generator = np.random.default_rng(0)
    theirs_drawn, ours_drawn = (median(generator.choice(costs, (resamples, len(costs)))) for costs in (other, mine))
    draws = _ratio(theirs_drawn, ours_drawn)
    known = draws[~np.isnan(draws)]
    if len(known) == 0:
        return math.nan, math.nan, math.nan
    return float(_ratio(median(other), median(mine))), *_percentiles(known)


def ratio_text(
    ours: Sequence[Curve], theirs: Sequence[Curve], ratio: tuple[float, float, float], accuracy: float
) -> str:
    """A ratio of rollouts in words. Where theirs never got there it is at least their whole budget over our cost."""
    middle, low, high = ratio
    if math.isnan(middle) or middle == 0:
        return "-"
    if math.isinf(middle):
        cost = float(median(np.array([cost_of(curve, accuracy) for curve in ours])))
        return f"above {min(curve.rollouts[-1] for curve in theirs) / cost:.1f}"
    return f"{middle:.1f} [{low:.1f}, {'never' if math.isinf(high) else f'{high:.1f}'}]"


def mean_interval(values: Sequence[float], *, resamples: int = 10_000) -> tuple[float, float, float]:
    """Mean over seeds with a 95 % bootstrap interval (percentile; with few seeds it is too narrow, which we say)."""
    array = np.asarray(values, dtype=float)
    low, high = bootstrap(array, lambda draws: draws.mean(-1), resamples=resamples)
    return float(array.mean()), low, high


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int
) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of a statistic over resampled values; the draws are the same every time.

    `statistic` takes [resamples, n] and gives [resamples].
    """
    generator = np.random.default_rng(0)
    return _percentiles(statistic(generator.choice(values, (resamples, len(values)))))


def median(values: np.ndarray) -> np.ndarray:
    """The lower median along the last axis, always one of the values: half-way between a number and never is none."""
    return np.sort(values, axis=-1)[..., (values.shape[-1] - 1) // 2]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    ordered = np.sort(values)  # np.percentile makes NaN out of infinities
    places = (round(0.025 * (len(ordered) - 1)), round(0.975 * (len(ordered) - 1)))
    return float(ordered[places[0]]), float(ordered[places[1]])


def _ratio(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    known = (ours > 0) & ~(np.isinf(ours) & np.isinf(theirs))
    return np.where(known, theirs / np.where(known, ours, 1.0), np.nan)
