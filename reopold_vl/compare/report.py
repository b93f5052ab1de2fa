"""report.md of a comparison, from comparison.json alone: its tables, each with what it says and does not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reopold_vl.compare import tables
from reopold_vl.compare.tables import Arms, Result


def to_markdown(result: Result) -> str:
    """The study as a page of all its tables, each with what it says and does not say."""
    parts = [f"# {result['title']}", *summary_lines(result)]
    for name in TABLES:
        if lines := table_lines(result, name):
            parts += ["", *lines]
    return "\n".join(parts) + "\n"


def table_lines(result: Result, name: str) -> list[str]:
    """One of TABLES with its caption; empty where the study has nothing for it."""
    caption, make = TABLES[name]
    found = [(label, make(result, arms)) for label, arms in tables.pairs(result)]
    found = [(label, rows) for label, rows in found if rows]
    lines: list[str] = []
    for label, rows in found:
        lines += [*([f"Pair: {label}.", ""] if label else []), *rows, ""]
    return [caption(result), "", *lines[:-1]] if found else []


def summary_lines(result: Result) -> list[str]:
    """What was measured on what, how it was made, and what the brackets are."""
    seeds = result["seeds"]
    points = ", ".join(f"{point:,.0f}" for point in result["evaluated"])
    made = f"summed up at commit {result['commit']}" if result["commit"] else "summed up outside a git checkout"
    return [
        "",
        f"{_number(seeds, 'seed')} an arm; greedy answers to {result['num_test']:,} test problems at the end and to "
        f"{result['num_validation']:,} validation problems after {points} rollouts. Brackets are 95 % percentile "
        f"bootstrap intervals over seeds; of so few they are too narrow (of normal values they cover the mean about 80 "
        f"times in 100 with 4 seeds, 88 with 8). {result['cpu_hours']:.1f} CPU-hours of training.",
        "",
        f"Made by `{result['command']}`, {made}.",
    ]


def _said(text: str) -> Callable[[Result], str]:
    return lambda _: text


TABLES: Mapping[str, tuple[Callable[[Result], str], Callable[[Result, Arms], list[str]]]] = {
    "accuracy": (
        _said(
            "**Test accuracy after training**, mean over seeds. There is one teacher, so the brackets of 'minus "
            "teacher' are over seeds and test problems."
        ),
        tables.accuracy,
    ),
    "paired": (
        _said(
            "**Paired differences in test accuracy**, points, arm minus the other arm on the same seed: same test "
            "problems, and same prompts where both ask as many a step. p is of a permutation test that flips the "
            "differences' signs (two-sided, not corrected for the number of arms; with 4 seeds it cannot be below "
            "0.125, with 8 below 0.008). Wins, ties and losses are counts of seeds."
        ),
        tables.differences,
    ),
    "reached": (
        lambda result: (
            "**Rollouts to a share of the teacher's validation accuracy**: the median seed's first crossing, on "
            "straight lines between the evaluations. A run that was not there when its budget of "
            f"{result['evaluated'][-1]:,.0f} rollouts ended is censored: it counts as dearer than every run that was, "
            "and is counted out as 'never'. The lower median is taken, so no number is made up half-way to never. A "
            "number between two evaluations is as good as a straight line between them."
        ),
        tables.reached,
    ),
    "ratio": (
        lambda result: (
            f"**Rollouts of {result['reference']} over those of each arm**, medians; above 1 the arm needs fewer. "
            "Seeds of both are resampled independently. 'above' means that the reference's median run was censored, "
            "and gives its whole budget over the arm's cost; 'never' that an end of the interval is so, 0.0 that it is "
            "of seeds on which the arm never got there; '-' that the arm's own median run was censored, or there from "
            "the start."
        ),
        tables.ratios,
    ),
    "types": (
        _said(
            "**Test accuracy by question type.** 'falls' marks a type whose interval over seeds lies below the start: "
            "negative transfer. The interval does not cover the drawing of the test problems, and of many types and "
            "arms a few will fall by chance."
        ),
        tables.question_types,
    ),
    "tail": (
        _said(
            "**The tail of R** over all response tokens, masked or not (nats): mean of the first tenth of the steps, "
            "and of the last. -1.72 is the paper's floor at lambda 0.3. The tokens are the student's, but for sft, "
            "where they are the teacher's."
        ),
        tables.tail,
    ),
    "cost": (
        _said(
            "**What a run spends**, mean over seeds, and CPU seconds to a share of the teacher's validation accuracy. "
            "Evaluations are not counted. The teacher's scores of sampled tokens are needed, or they are for the log "
            "alone, and then left out (or counted, where a run's log does not say what they took)."
        ),
        tables.costs,
    ),
    "validation": (_said("**Validation accuracy after training**, mean over seeds."), tables.validation),
}


def _number(count: int, word: str) -> str:
    return f"{count} {word}" + ("s" if count != 1 else "")
