"""The pictures of an evaluation: accuracy with intervals, and accuracy against time where speed was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.pace import Speed, points
from eval.score import Outcome

# From the palette of Okabe and Ito, which colour-blind readers can tell apart; the shapes differ as well.
_LOOK = {"model": ("#0072B2", "o"), "baseline": ("#D55E00", "s")}
_STYLE: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def draw(outcomes: Sequence[Outcome], directory: Path, speed: Speed | None) -> list[Path]:
    """Write what there is data for: accuracy.png, accuracy_<bench>.png (by a tag), accuracy_time.png; the paths."""
    pictures = []
    overall = [(outcome.bench.title, _shares(outcome)) for outcome in outcomes]
    if any(shares for _, shares in overall):
        pictures.append(_dots(overall, outcomes, directory / "accuracy.png", "Accuracy with 95% intervals"))
    for outcome in outcomes:
        rows = _parts(outcome)
        if len(rows) > 1:
            path = directory / f"accuracy_{outcome.bench.name}.png"
            pictures.append(_dots(rows, [outcome], path, f"{outcome.bench.title}: accuracy with 95% intervals"))
    ways = points(speed) if speed is not None else ()
    if ways:
        from eval.speed_plot import plot_accuracy_time

        path = directory / "accuracy_time.png"
        pictures.append(plot_accuracy_time(ways, path, title="Accuracy against time per problem"))
    return pictures


def _shares(outcome: Outcome) -> dict[str, Any]:
    return {role: summary.accuracy for role, summary in outcome.summaries.items() if summary.accuracy}


def _parts(outcome: Outcome, most: int = 40) -> list[tuple[str, dict[str, Any]]]:
    """The benchmark's first breakdown of a size that can be read."""
    for tag, values in outcome.model.breakdown.items():
        if 2 <= len(values) <= most:
            return [
                (
                    value,
                    {
                        role: summary.breakdown[tag][value]
                        for role, summary in outcome.summaries.items()
                        if value in summary.breakdown.get(tag, {})
                    },
                )
                for value in values
            ]
    return []


def _dots(rows: Sequence[tuple[str, dict[str, Any]]], outcomes: Sequence[Outcome], path: Path, title: str) -> Path:
    """One line for each row, one dot with its interval for each model."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = {role: summary.model for outcome in outcomes for role, summary in outcome.summaries.items()}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 1.6 + 0.42 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, (role, name) in enumerate(names.items()):
            colour, marker = _LOOK[role]
            label = _plain(f"{name} ({role})")
            for row, (_, shares) in enumerate(rows):
                share = shares.get(role)
                if share is None:
                    continue
                low, high = share.interval
                reach = [[max(0.0, share.value - low)], [max(0.0, high - share.value)]]
                place = row + (0.14 if index else -0.14) * (len(names) > 1)
                axes.errorbar(share.value, place, xerr=reach, fmt=marker, color=colour, capsize=2.5, label=label)
                label = "_nolegend_"
        axes.set_yticks(range(len(rows)), [_plain(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(True, axis="x", color="#E5E7EB", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Software": None}, format="png")
    return path


def _plain(name: str, most: int = 48) -> str:
    """A label as it is: matplotlib would read what stands between dollar signs as a formula."""
    line = " ".join(name.split())
    short = line if len(line) <= most else line[: most - 3] + "..."
    return short.replace("$", r"\$")
