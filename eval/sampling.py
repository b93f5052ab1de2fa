"""What several answers to one problem are worth: pass@k, majority voting (maj@k), errors clustered by problem."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from eval.scoring.numbers import parse_number
from eval.types import Graded, Problem
from reopold_vl.answers import choice_index, normalise

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3}){1,9}(?:\.\d{1,30})?")
_PLAIN_NUMBER = re.compile(r"([+-]?\d{1,30}(?:\.\d{1,30})?)(?:/(\d{1,30}))?")


@dataclass(frozen=True)
class Estimate:
    """A mean over `problems`, with its standard error (0 for a single problem: nothing to see a spread in)."""

    value: float
    standard_error: float
    problems: int


@dataclass(frozen=True)
class Majority(Estimate):
    """maj@k. `ties` and `no_votes` are the expected numbers of problems whose vote is tied, or where nobody votes."""

    k: int
    ties: float
    no_votes: float


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k answers is right, from n answers of which c are right: 1 - C(n-c,k) / C(n,k).

    Unbiased for any k <= n, unlike 1 - (1 - c/n)^k. M. Chen et al., "Evaluating Large Language Models Trained on Code"
    (arXiv 2107.03374), equation 1. Raises `ValueError` unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} from {c} right of {n} answers: allowed are 0 <= right <= n and 1 <= k <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def mean_pass_at_k(groups: Iterable[Sequence[Graded]], k: int) -> Estimate:
    """Mean pass@k over problems; each group holds the answers to one problem.

    Problems that could not be shown to the model are left out, as everywhere (`Estimate.problems` says how many are
    in). Raises `ValueError` as `pass_at_k` does, or where no problem is left.
    """
    return _estimate([pass_at_k(len(group), sum(item.correct for item in group), k) for group in _shown(groups)])


def maj_at_k(groups: Iterable[Sequence[Graded]], k: int) -> Majority:
    """Expected accuracy of the most frequent of k answers (self-consistency), mean over problems.

    Exact, without drawing: the mean over all C(n, k) subsets of each problem's n answers. Votes are the extracted
    answers, equal where `vote_key` is; unparsed answers and refusals take a place among the k but do not vote. A tie
    is broken uniformly at random, and the expectation over that is taken too; where nobody votes the problem is wrong.
    Problems that could not be shown to the model are left out. X. Wang et al., "Self-Consistency Improves Chain of
    Thought Reasoning in Language Models" (arXiv 2203.11171). Raises `ValueError` where no problem is left, or for k
    outside 1..n of any of them.
    """
    results = [_majority(group, k) for group in _shown(groups)]
    mean = _estimate([value for value, _, _ in results])
    return Majority(
        mean.value,
        mean.standard_error,
        mean.problems,
        k=k,
        ties=sum(tie for _, tie, _ in results),
        no_votes=sum(silent for _, _, silent in results),
    )


def vote_key(problem: Problem, answer: str) -> str:
    """Answers with the same key are the same vote: the same option by letter or text, the same number, the same words.

    Numbers are the same when they are at the decimals that the problem asks for ("8 years" and "8.0" are 8). Gold plays
    no part in it: voters do not know it.
    """
    index = choice_index(answer, problem.choices) if problem.choices else None
    if index is not None:
        return f"option {index}"
    if problem.kind in ("integer", "float", "number") and (value := parse_number(answer)) is not None:
        return repr(round(value, problem.precision) if problem.precision is not None else value)
    text = normalise(answer)
    number = _PLAIN_NUMBER.fullmatch(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    if number is None or (number[2] is not None and not int(number[2])):
        return text
    return str(Fraction(number[1]) / int(number[2] or 1))


def smallest_k_reaching(target: float, accuracy_by_k: Mapping[int, float]) -> int | None:
    """The fewest samples k whose accuracy is at least `target`; None where no k gets there."""
    return min((k for k, accuracy in accuracy_by_k.items() if accuracy >= target), default=None)


def clustered(groups: Iterable[Sequence[bool]]) -> Estimate:
    """Accuracy over all answers, with a standard error that knows answers to one problem belong together.

    With s_i the sum of a problem's residuals (answer - accuracy), the error is sqrt(sum_i s_i^2) / N over N answers.
    E. Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), equation 4. Raises `ValueError` without answers.
    """
    filled = [list(group) for group in groups if group]
    total = sum(len(group) for group in filled)
    if total == 0:
        raise ValueError("no answers: an accuracy needs at least one")
    mean = sum(sum(group) for group in filled) / total
    squares = sum((sum(group) - len(group) * mean) ** 2 for group in filled)
    return Estimate(mean, math.sqrt(squares) / total, len(filled))


def by_problem(graded: Iterable[Graded]) -> dict[str, list[Graded]]:
    """The answers to each problem by its id, in the order of their sample numbers."""
    groups: dict[str, list[Graded]] = {}
    for item in graded:
        groups.setdefault(item.response.problem.id, []).append(item)
    return {name: sorted(group, key=lambda item: item.response.sample) for name, group in groups.items()}


def _shown(groups: Iterable[Sequence[Graded]]) -> list[list[Graded]]:
    """The groups whose problem reached the model."""
    return [list(group) for group in groups if not any(item.verdict is None for item in group)]


def _estimate(values: Sequence[float]) -> Estimate:
    if not values:
        raise ValueError("no problems: a mean needs at least one")
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return Estimate(mean, math.sqrt(spread / len(values)), len(values))


def _majority(group: list[Graded], k: int) -> tuple[float, float, float]:
    """(expected accuracy, probability of a tie, probability that nobody votes) over all subsets of size k."""
    if not 1 <= k <= len(group):
        raise ValueError(f"maj@{k} from {len(group)} answers: allowed is 1 <= k <= {len(group)}")
    votes: dict[str, list[bool]] = {}
    silent = 0
    for item in group:
        if item.verdict is None or item.verdict.status != "answered" or item.verdict.extraction is None:
            silent += 1
        else:
            key = vote_key(item.response.problem, item.verdict.extraction)
            votes.setdefault(key, []).append(item.verdict.correct)
    subsets = math.comb(len(group), k)
    # A vote's members differ in correctness only where the grader is finer than the vote: then a share of it is right.
    candidates = [(len(members), sum(members) / len(members)) for members in votes.values()]
    value = ties = 0.0
    for most in range(1, k + 1):
        for (used, winners), (ways, right) in _ways(candidates, most, k).items():
            if winners:
                share = math.comb(silent, k - used) / subsets
                value += share * right / winners
                ties += share * ways if winners > 1 else 0.0
    return value, ties, math.comb(silent, k) / subsets


def _ways(candidates: list[tuple[int, float]], most: int, k: int) -> dict[tuple[int, int], tuple[int, float]]:
    """Ways to draw at most `most` of each candidate's votes, by (votes drawn, candidates that have `most` of them).

    Each value is (ways, sum over these ways of the winners' correctness). Adding one candidate at a time makes this
    polynomial where listing the subsets is not.
    """
    table: dict[tuple[int, int], tuple[int, float]] = {(0, 0): (1, 0.0)}
    for size, correct in candidates:
        grown: dict[tuple[int, int], tuple[int, float]] = {}
        for (used, winners), (ways, right) in table.items():
            for drawn in range(min(size, most, k - used) + 1):
                wins = int(drawn == most)
                choose = math.comb(size, drawn)
                old_ways, old_right = grown.get((used + drawn, winners + wins), (0, 0.0))
                added = choose * (right + (correct * ways if wins else 0.0))
                grown[used + drawn, winners + wins] = old_ways + choose * ways, old_right + added
        table = grown
    return table
