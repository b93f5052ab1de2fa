"""Two models on the same problems: paired difference, exact McNemar test, retention. Sampling figures: `eval.sampling`.

Accuracies of one model and their Wilson intervals are `reopold_vl.report.stats.Accuracy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.types import Graded
from reopold_vl.report.stats import paired_difference


@dataclass(frozen=True)
class Retention:
    """How much of the teacher's accuracy the student keeps, student / teacher, with a 95 % bootstrap interval.

    `interval` is None where the teacher is right so rarely that resampling leaves the ratio without an upper bound.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """Models a and b on the problems that both were shown, accuracies of `total` paired answers.

    `difference` is accuracy a - b and `interval` its 95 % bootstrap interval over problems; `p_value` comes from the
    test named in `test`. `both_right`, `only_a`, `only_b`, `neither` add up to `total`. `left_out` counts pairs that
    one of the models could not be shown. `retention` is a / b, None where b is never right.
    """

    problems: int
    total: int
    left_out: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    test: str
    retention: Retention | None
    both_right: int
    only_a: int
    only_b: int
    neither: int


def mcnemar_exact(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided p-value for "a and b are equally often right" on the same items.

    Given how many items only one of them gets right, each is as likely to be either's: a binomial test with p = 1/2
    on the discordant pairs, p = min(1, 2 P(X <= the smaller count)); 1 where there are none. Q. McNemar,
    Psychometrika 12 (1947), 153-157; the exact form in A. Agresti, "Categorical Data Analysis", section 10.1. Raises
    `ValueError` for lists that are empty or of different lengths.
    """
    _, only_a, only_b, _ = _table(a, b)
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1
    for i in range(fewer):
        term = term * (discordant - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def retention(
    student: Sequence[bool],
    teacher: Sequence[bool],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Retention:
    """Right answers of the student over those of the teacher on the same items, with a percentile bootstrap interval.

    Items are drawn with replacement, which is a multinomial draw of the four kinds of pairs. A resample in which the
    teacher is never right counts as an infinite ratio (none, if the student is never right either). Raises
    `ValueError` for lists that are empty or of different lengths, and for a teacher that is never right.
    """
    import numpy as np

    both, only_student, only_teacher, neither = _table(student, teacher)
    if both + only_teacher == 0:
        raise ValueError(f"retention is undefined: the teacher has none of {len(teacher)} answers right")
    shares = [count / len(teacher) for count in (both, only_student, only_teacher, neither)]
    draws = np.random.default_rng(seed).multinomial(len(teacher), shares, size=resamples)
    interval = _ratio_interval(draws[:, 0] + draws[:, 1], draws[:, 0] + draws[:, 2], confidence)
    return Retention((both + only_student) / (both + only_teacher), interval)


def compare(a: Iterable[Graded], b: Iterable[Graded], *, seed: int = 0, resamples: int = 10_000) -> Comparison:
    """Compare two models' graded answers, paired by problem id and sample number (the order does not matter).

    With one answer a problem the test is McNemar's exact one. With several, problems and not answers are resampled,
    and the p-value is that of a permutation test which swaps a and b problem by problem (10,000 seeded draws). Raises
    `ValueError` where ids differ, saying how many and naming the first, or where nothing is left to compare.
    """
    ours, theirs = _by_key(a, "first"), _by_key(b, "second")
    differ = sorted(set(ours) ^ set(theirs))
    if differ:
        name, sample = differ[0]
        side = "second" if differ[0] in ours else "first"
        raise ValueError(
            f"{len(differ)} answers have no counterpart: the first is id {name!r}, sample {sample}, missing in the "
            f"{side} model's answers ({len(ours)} and {len(theirs)} answers)"
        )
    keys = [key for key in ours if ours[key].verdict is not None and theirs[key].verdict is not None]
    if not keys:
        raise ValueError(f"nothing to compare: none of {len(ours)} paired answers was graded for both models")
    right_a, right_b = [ours[key].correct for key in keys], [theirs[key].correct for key in keys]
    both, only_a, only_b, neither = _table(right_a, right_b)
    problems = len({name for name, _ in keys})
    kept = None
    if problems == len(keys):
        difference, low, high = paired_difference(right_a, right_b, seed=seed, resamples=resamples)
        p_value, test = mcnemar_exact(right_a, right_b), "exact McNemar"
        if both + only_b:
            kept = retention(right_a, right_b, seed=seed, resamples=resamples)
    else:
        names = [name for name, _ in keys]
        low, high, p_value, ratio = _by_problems(names, right_a, right_b, seed, resamples)
        difference, test = (only_a - only_b) / len(keys), "permutation by problem"
        if both + only_b:
            kept = Retention((both + only_a) / (both + only_b), ratio)
    return Comparison(
        problems=problems,
        total=len(keys),
        left_out=len(ours) - len(keys),
        accuracy_a=sum(right_a) / len(keys),
        accuracy_b=sum(right_b) / len(keys),
        difference=difference,
        interval=(low, high),
        p_value=p_value,
        test=test,
        retention=kept,
        both_right=both,
        only_a=only_a,
        only_b=only_b,
        neither=neither,
    )


def _by_key(graded: Iterable[Graded], which: str) -> dict[tuple[str, int], Graded]:
    found: dict[tuple[str, int], Graded] = {}
    for item in graded:
        key = item.response.problem.id, item.response.sample
        if key in found:
            raise ValueError(f"id {key[0]!r}, sample {key[1]} stands twice in the {which} model's answers")
        found[key] = item
    return found


def _table(a: Sequence[bool], b: Sequence[bool]) -> tuple[int, int, int, int]:
    """Pairs where (both, only a, only b, neither) are right."""
    if len(a) != len(b) or not a:
        raise ValueError(f"a paired comparison needs the same items twice, not {len(a)} and {len(b)} of them")
    both = only_a = only_b = 0
    for x, y in zip(a, b, strict=True):
        both += bool(x and y)
        only_a += bool(x and not y)
        only_b += bool(y and not x)
    return both, only_a, only_b, len(a) - both - only_a - only_b


def _by_problems(
    names: list[str], a: list[bool], b: list[bool], seed: int, resamples: int
) -> tuple[float, float, float, tuple[float, float] | None]:
    """(low, high, p, interval of the ratio) with problems as units: they are resampled, or a and b swapped in them."""
    import numpy as np

    sums: dict[str, list[int]] = {}
    for name, x, y in zip(names, a, b, strict=True):
        row = sums.setdefault(name, [0, 0, 0])
        for column, value in enumerate((x, y, True)):
            row[column] += int(value)
    table = np.array(list(sums.values()))
    gains = table[:, 0] - table[:, 1]
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, 3))
    swapped = 0
    for row in range(resamples):
        draws[row] = table[generator.integers(len(table), size=len(table))].sum(0)
        swapped += abs(((2 * generator.integers(2, size=len(table)) - 1) * gains).sum()) >= abs(gains.sum())
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / draws[:, 2], [2.5, 97.5])
    # The labelling as observed is one of those that the test could have drawn, hence the 1 (B. Phipson and
    # G. K. Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39).
    p_value = (int(swapped) + 1) / (resamples + 1)
    return float(low), float(high), p_value, _ratio_interval(draws[:, 0], draws[:, 1], 0.95)


def _ratio_interval(ours: Any, theirs: Any, confidence: float) -> tuple[float, float] | None:
    """Percentiles of ours / theirs over resamples; x / 0 is infinite, 0 / 0 is no ratio; None without an upper end."""
    import numpy as np

    defined = (ours > 0) | (theirs > 0)
    with np.errstate(divide="ignore"):
        ratios = ours[defined] / theirs[defined]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail], method="inverted_cdf")
    return (float(low), float(high)) if np.isfinite(high) else None
