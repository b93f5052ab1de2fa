"""Responses -> verdicts -> figures. Needs neither a model nor torch: stored responses are scored in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.benchmark import Benchmark, Grader
from eval.sampling import by_problem, clustered, maj_at_k, mean_pass_at_k
from eval.stats import Comparison, compare
from eval.types import Graded, Response, Scorer, Verdict
from reopold_vl.report.stats import Accuracy, normal_quantile

COMMITTED = ("box", "cue", "tag", "final answer", "first line", "first words")
"""Beginnings of the rules' names by which an answer is stated and not gathered from prose."""


@dataclass(frozen=True)
class Share:
    """An accuracy, 0 to 1, over `answers` answers to `problems` problems, with its 95 % interval and standard error.

    One answer a problem: Wilson's interval. Several: the normal interval with an error clustered by problem.
    """

    value: float
    interval: tuple[float, float]
    standard_error: float
    problems: int
    answers: int


@dataclass(frozen=True)
class Summary:
    """What one model did on one benchmark; `accuracy` is None where no answer could be scored.

    `unparsed`, `refusal` and `truncated` count scored answers, `failed` those that never reached the model (they are
    in no accuracy). `samples` is the number of answers to each problem. `judged` counts what the judge was asked.
    """

    bench: Benchmark
    model: str
    scorer: Scorer
    graded: tuple[Graded, ...] = field(repr=False)
    accuracy: Share | None
    samples: int
    unparsed: int
    refusal: int
    truncated: int
    failed: int
    tokens: float
    seconds: float
    metrics: Mapping[str, float]
    breakdown: Mapping[str, Mapping[str, Share]]
    pass_at: Mapping[int, float]
    maj_at: Mapping[int, float]
    judged: Mapping[str, int] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        """Scored answers."""
        return self.accuracy.answers if self.accuracy else 0

    def rate(self, name: str) -> float:
        """`unparsed`, `refusal` or `truncated` as a share of the scored answers; `failed` as one of all."""
        whole = len(self.graded) if name == "failed" else self.answers
        return getattr(self, name) / whole if whole else 0.0

    @property
    def headline(self) -> tuple[str, float] | None:
        """The figure that papers quote, by name, where it is not the plain accuracy and could be computed."""
        name = self.bench.headline
        return (name, self.metrics[name]) if name in self.metrics else None


@dataclass(frozen=True)
class Outcome:
    """One benchmark: the model, the baseline and the difference between them (None where there is no pair)."""

    bench: Benchmark
    model: Summary
    baseline: Summary | None = None
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summaries(self) -> dict[str, Summary]:
        return {"model": self.model} | ({"baseline": self.baseline} if self.baseline else {})


def grade(bench: Benchmark, responses: Sequence[Response], scorer: Scorer) -> list[Graded]:
    """A verdict on each response; failed inputs have none. Raises ValueError where the benchmark lacks the scorer."""
    if scorer not in bench.graders:
        allowed = ", ".join(bench.graders)
        raise ValueError(f"scorer is {scorer}: {bench.name} knows {allowed}")
    return [
        Graded(
            response,
            None if response.finish_reason == "failed" else verdict_on(response, bench.graders[scorer], scorer),
        )
        for response in responses
    ]


def verdict_on(response: Response, grader: Grader, scorer: Scorer) -> Verdict:
    """The grader's verdict; `strict` takes an answer that was cut off at the token limit for none at all.

    A box, tag or final-answer cue before the cut is a commitment and counts; a number or an option found in the prose
    of an unfinished answer is a guess. The published rules know no cut.
    """
    if scorer != "strict" or response.finish_reason != "length":
        return grader(response.problem, response.text)
    verdict = grader(response.problem, _before_cut(response.text))
    if verdict.status == "answered" and not verdict.rule.startswith(COMMITTED):
        return Verdict(None, f"cut off, {verdict.rule}", False, "unparsed")
    return verdict


def _before_cut(text: str) -> str:
    """`text` without a last word that the cut may have gone through ("12" of "125"); a closed one stays."""
    words = text[-200:].split()
    if not words or text[-1].isspace() or re.search(r"[^\W\d][.!?]$|[)\]}>*$!?%;:\"'\u3002]\.?$", words[-1]):
        return text
    return text[: len(text) - len(words[-1])]


def summarise(
    bench: Benchmark, graded: Sequence[Graded], scorer: Scorer, judged: Mapping[str, int] | None = None
) -> Summary:
    """All figures over the answers of one model."""
    scored = [item for item in graded if item.verdict is not None]
    groups = by_problem(graded)
    samples = max((len(group) for group in groups.values()), default=0)
    return Summary(
        bench=bench,
        model=graded[0].response.model if graded else "",
        scorer=scorer,
        graded=tuple(graded),
        accuracy=share(scored) if scored else None,
        samples=samples,
        unparsed=sum(item.verdict is not None and item.verdict.status == "unparsed" for item in scored),
        refusal=sum(item.verdict is not None and item.verdict.status == "refusal" for item in scored),
        truncated=sum(item.response.finish_reason == "length" for item in scored),
        failed=len(graded) - len(scored),
        tokens=_mean([item.response.tokens for item in scored]),
        seconds=_mean([item.response.seconds for item in scored]),
        metrics=_metrics(bench, graded, samples),
        breakdown=_breakdown(scored),
        pass_at={k: mean_pass_at_k(groups.values(), k).value for k in _ks(groups)},
        maj_at={k: maj_at_k(groups.values(), k).value for k in _ks(groups)},
        judged=dict(judged or {}),
    )


def share(scored: Sequence[Graded]) -> Share:
    """The accuracy over graded answers (at least one)."""
    groups = [[item.correct for item in group] for group in by_problem(scored).values()]
    answers = sum(map(len, groups))
    if answers == len(groups):
        plain = Accuracy(sum(map(sum, groups)), answers)
        # As lmms-eval computes it: the sample's standard deviation over the root of N.
        error = math.sqrt(plain.value * (1 - plain.value) / max(1, answers - 1))
        return Share(plain.value, plain.interval, error, answers, answers)
    mean = clustered(groups)
    reach = normal_quantile() * mean.standard_error
    interval = max(0.0, mean.value - reach), min(1.0, mean.value + reach)
    return Share(mean.value, interval, mean.standard_error, len(groups), answers)


def pair(ours: Sequence[Graded], theirs: Sequence[Graded], *, seed: int) -> tuple[Comparison | None, tuple[str, ...]]:
    """The comparison on the answers that both models gave, and notes on what has no counterpart."""
    common = {_place(item) for item in ours} & {_place(item) for item in theirs}
    notes = []
    alone = len(ours) + len(theirs) - 2 * len(common)
    if alone:
        notes.append(f"{alone} answers have no counterpart at the other model and are not in the comparison")
    both = [[item for item in side if _place(item) in common] for side in (ours, theirs)]
    questions = [{_place(item): item.response.prompt for item in side} for side in both]
    differ = sum(questions[0][place] != questions[1][place] for place in common)
    if differ:
        notes.append(f"{differ} problems were put to the two models in different words")
    try:
        return compare(both[0], both[1], seed=seed), tuple(notes)
    except ValueError as error:
        return None, (*notes, f"no comparison: {error}")


def _place(item: Graded) -> tuple[str, int]:
    return item.response.problem.id, item.response.sample


def _metrics(bench: Benchmark, graded: Sequence[Graded], samples: int) -> dict[str, float]:
    """The official figures, which know one answer a problem: their mean over the samples."""
    rounds = [bench.metrics([item for item in graded if item.response.sample == sample]) for sample in range(samples)]
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: _mean([figures[name] for figures in rounds if name in figures]) for name in names}


def _breakdown(scored: Sequence[Graded]) -> dict[str, dict[str, Share]]:
    parts: dict[str, dict[str, list[Graded]]] = {}
    for item in scored:
        for tag, values in item.response.problem.tags.items():
            for value in dict.fromkeys(values):
                parts.setdefault(tag, {}).setdefault(value, []).append(item)
    return {tag: {value: share(items) for value, items in sorted(values.items())} for tag, values in parts.items()}


def _ks(groups: Mapping[str, Sequence[Graded]]) -> list[int]:
    """1, 2, 4, ... up to the number of answers that every problem has; nothing for a single answer."""
    shown = [len(group) for group in groups.values() if all(item.verdict is not None for item in group)]
    most = min(shown, default=1)
    return sorted({k for k in (2**power for power in range(20)) if k <= most} | {most}) if most > 1 else []


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
