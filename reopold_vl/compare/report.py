"""report.md and the pictures of a comparison, drawn from comparison.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]


def to_markdown(result: Result) -> str:
    """The study as tables: final accuracy, rollouts to shares of the teacher's accuracy, accuracy by question type."""
    arms: Mapping[str, Any] = result["arms"]
    any_arm = next(iter(arms.values()))
    seeds = result["seeds"]
    few = " With so few seeds the intervals are too narrow." if seeds < 5 else ""
    lines = [
        f"# {result['title']}",
        "",
        f"{seeds} seeds an arm; test split of {result['num_test']:,} problems, validation split of "
        f"{result['num_validation']:,} for the curves; greedy answers. Brackets are 95 % percentile bootstrap "
        f"intervals over seeds.{few} Student before {_percent(any_arm['before'])}, teacher "
        f"{_percent(any_arm['teacher'])} (test), {_percent(any_arm['teacher_validation'])} (validation). "
        f"{result['cpu_hours']:.1f} CPU-hours.",
        "",
        *_accuracy_table(arms, result["thresholds"]),
        "",
    ]
    if result["reference"]:
        lines += [f"Rollouts of {result['reference']} over those of each arm (medians):", ""]
        lines += [*_ratio_table(arms, result["thresholds"]), ""]
    lines += ["Test accuracy by question type (mean over seeds; in brackets the worst seed):", "", *_type_table(arms)]
    return "\n".join(lines) + "\n"


def _accuracy_table(arms: Mapping[str, Any], thresholds: list[float]) -> list[str]:
    head = [
        "arm",
        "after",
        "minus teacher",
        *(f"rollouts to {100 * share:.0f} % of the teacher" for share in thresholds),
    ]
    rows = []
    for name, arm in arms.items():
        after, gap = arm["test_accuracy"], arm["to_teacher"]
        rows.append(
            [
                name,
                f"{_percent(after['mean'])} [{_percent(after['low'])}, {_percent(after['high'])}]",
                f"{_points(gap['mean'])} [{_points(gap['low'])}, {_points(gap['high'])}]",
                *(arm["reached"][f"{share:.2f}"]["text"] for share in thresholds),
            ]
        )
    return table(head, rows)


def _ratio_table(arms: Mapping[str, Any], thresholds: list[float]) -> list[str]:
    head = ["arm", *(f"to {100 * share:.0f} %" for share in thresholds)]
    rows = [
        [name, *(_ratio(arm["reached"][f"{share:.2f}"].get("ratio")) for share in thresholds)]
        for name, arm in arms.items()
    ]
    return table(head, rows)


def _ratio(values: list[float | None] | None) -> str:
    if values is None:
        return "1"
    middle, low, high = values
    if middle is None:
        return "more than can be said (never reached)" if low is not None else "-"
    return f"{middle:.1f} [{'?' if low is None else f'{low:.1f}'}, {'never' if high is None else f'{high:.1f}'}]"


def _type_table(arms: Mapping[str, Any]) -> list[str]:
    any_arm = next(iter(arms.values()))
    rows = []
    for kind, values in any_arm["by_type"].items():
        found = [arm["by_type"][kind] for arm in arms.values()]
        cells = [f"{_percent(each['after'])} ({_percent(each['lowest'])})" for each in found]
        rows.append([kind, _percent(values["before"]), _percent(values["teacher"]), *cells])
    return table(["question type", "before", "teacher", *arms], rows)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A markdown table's lines."""
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def draw(result: Result, directory: Path) -> list[Path]:
    """Accuracy against rollouts, tokens and CPU time, and what was watched over the steps; the PNGs written."""
    import numpy as np
    from matplotlib.figure import Figure

    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B7280", "#000000")
    directory.mkdir(parents=True, exist_ok=True)
    arms = list(result["arms"].items())
    written = []
    for axis, label in (("rollouts", "rollouts"), ("tokens", "response tokens"), ("cpu_seconds", "CPU seconds")):
        figure = Figure(figsize=(8, 5), layout="constrained")
        plot = figure.subplots()
        for index, (name, arm) in enumerate(arms):
            spent, mean, low, high = _band([run["curve"] for run in arm["runs"]], axis)
            colour, dash = colours[index % len(colours)], ("-", "--", ":")[index // len(colours) % 3]
            plot.plot(spent, mean, dash, color=colour, label=name, linewidth=2)
            plot.fill_between(spent, low, high, color=colour, alpha=0.15, linewidth=0)
        plot.axhline(100 * arms[0][1]["teacher_validation"], color="#6B7280", linestyle=":", linewidth=1.5)
        plot.set_xlabel(label)
        plot.set_ylabel("held-out accuracy, %")
        plot.set_title(f"{result['title']} (dotted: teacher; bands: 95 % over {result['seeds']} seeds)", fontsize=10)
        plot.legend(frameon=False, fontsize=8)
        plot.spines[["top", "right"]].set_visible(False)
        written.append(directory / f"accuracy_{axis}.png")
        figure.savefig(written[-1], dpi=140)
    watched = [name for name in arms[0][1]["runs"][0]["watched"] if any(a["runs"][0]["watched"][name] for _, a in arms)]
    figure = Figure(figsize=(10, 2.6 * ((len(watched) + 1) // 2)), layout="constrained")
    places = np.atleast_1d(figure.subplots((len(watched) + 1) // 2, 2)).ravel()
    for place, name in zip(places, watched, strict=False):
        for index, (label, arm) in enumerate(arms):
            lines = [run["watched"][name] for run in arm["runs"] if run["watched"][name]]
            if lines:
                steps = [step for step, _ in lines[0]]
                means = np.mean([[value for _, value in line[: len(steps)]] for line in lines], axis=0)
                dash = ("-", "--", ":")[index // len(colours) % 3]
                place.plot(steps[: len(means)], means, dash, color=colours[index % len(colours)], label=label)
        place.set_title(name, fontsize=10)
        place.spines[["top", "right"]].set_visible(False)
    places[0].legend(frameon=False, fontsize=7)
    for place in places[len(watched) :]:
        place.set_visible(False)
    written.append(directory / "watched.png")
    figure.savefig(written[-1], dpi=140)
    return written


def _band(curves: list[Mapping[str, list[float]]], axis: str) -> tuple[Any, Any, Any, Any]:
    """Mean accuracy in percent with its interval over seeds; the x of a point is the mean of what was spent by then."""
    import numpy as np

    from reopold_vl.compare.curves import mean_interval

    points = min(len(curve["accuracy"]) for curve in curves)
    spent = np.mean([curve[axis][:points] for curve in curves], axis=0)
    columns = [[100 * curve["accuracy"][index] for curve in curves] for index in range(points)]
    intervals = [mean_interval(column, resamples=2_000) for column in columns]
    mean, low, high = (np.array(part) for part in zip(*intervals, strict=True))
    return spent, mean, low, high
