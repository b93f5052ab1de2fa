"""The picture of a pair: accuracy against time per problem, one point for each way to answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.speed_types import AccuracyTime

# From the palette of Okabe and Ito, which colour-blind readers can tell apart; the shapes differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "D", "^")
_LOG_SPREAD = 4  # times between the quickest and the slowest point from which a logarithmic axis reads better


def plot_accuracy_time(points: Sequence[AccuracyTime], path: str | Path, *, title: str = "") -> Path:
    """Write a PNG; error bars are the 95 % interval of the accuracy and the quartiles of the time.

    Greedy answers are filled markers, votes of k samples (maj@k) open ones joined by a line. Raises
    `ValueError` without points.
    """
    if not points:
        raise ValueError("nothing to draw: accuracy against time needs at least one point")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    style: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, model in enumerate(sorted({point.model for point in points})):  # the student as in other pictures
            _draw(axes, [point for point in points if point.model == model], index)
        times = [point.seconds_per_problem.median for point in points]
        if min(times) > 0 and max(times) / min(times) > _LOG_SPREAD:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        unit, scale = ("milliseconds", 1000) if max(times) < 1 else ("seconds", 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value * scale:g}")
        axes.margins(x=0.16, y=0.12)
        axes.set_xlabel(f"{unit} per problem (median)")
        axes.legend(frameon=False, loc="best")
        axes.set_ylabel("accuracy")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(True, color="#E5E7EB", linewidth=0.8)
        axes.set_axisbelow(True)
        if title:
            axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=150, metadata={"Software": None}, format="png")
    return target


def _draw(axes: Any, points: Sequence[AccuracyTime], index: int) -> None:
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    votes = sorted((point for point in points if not point.greedy), key=lambda point: point.samples)
    axes.plot(
        [point.seconds_per_problem.median for point in votes],
        [point.accuracy for point in votes],
        color=colour,
        linewidth=1.2,
        alpha=0.6,
    )
    axes.plot([], [], color=colour, marker=marker, linestyle="none", label=points[0].model)
    for order, point in enumerate(sorted(points, key=lambda point: point.seconds_per_problem.median)):
        seconds = point.seconds_per_problem
        axes.errorbar(
            seconds.median,
            point.accuracy,
            xerr=[[max(0.0, seconds.median - seconds.low)], [max(0.0, seconds.high - seconds.median)]],
            yerr=[
                [max(0.0, point.accuracy - point.interval[0])],
                [max(0.0, point.interval[1] - point.accuracy)],
            ],
            fmt=marker,
            color=colour,
            markerfacecolor=colour if point.greedy else "white",
            markersize=7,
            elinewidth=1.0,
            capsize=2.5,
            ecolor=colour,
            alpha=0.9,
        )
        # Neighbours in time get their names on different sides of the bar.
        above = order % 2 == 0
        axes.annotate(
            "greedy" if point.greedy else f"k = {point.samples}",
            (seconds.median, point.accuracy),
            xytext=(5, 7) if above else (5, -7),
            textcoords="offset points",
            verticalalignment="bottom" if above else "top",
            color=colour,
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )
