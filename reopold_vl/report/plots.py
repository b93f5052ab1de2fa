"""The pictures of a run, as PNG: accuracy against rollouts, the distribution of R with the floor, the mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reopold_vl.runlog import append_step_line, read_step_file

from .stats import Accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, float]

# Bin edges of the reward histogram in nats, the same for every run: a quarter of a nat from -12 to 4.
REWARD_EDGES = tuple(np.linspace(-12.0, 4.0, 65).tolist())

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#6B7280"
_STYLE: dict[Any, Any] = {
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9CA3AF",
    "axes.labelcolor": "#374151",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#4B5563",
    "ytick.color": "#4B5563",
    "lines.linewidth": 2.0,
    "legend.frameon": False,
}


def append_histogram(path: str | Path, step: int, rewards: Sequence[float] | np.ndarray) -> None:
    """Adds the distribution of one step's token rewards R (1-D, nats) to a histogram file.

    One line of JSON, {"step", "edges", "counts"}; the end bins also hold what lies beyond them, -inf included. NaN
    is not counted.
    """
    values = np.asarray(rewards, dtype=np.float64).ravel()
    values = np.clip(values[~np.isnan(values)], REWARD_EDGES[0], REWARD_EDGES[-1])
    counts, _ = np.histogram(values, bins=REWARD_EDGES)
    append_step_line(Path(path), {"step": int(step), "edges": list(REWARD_EDGES), "counts": counts.tolist()})


def read_histograms(path: str | Path) -> list[dict[str, Any]]:
    """The records that `append_histogram` wrote, in order; empty without a file; `ValueError` for a broken line."""
    return read_step_file(Path(path))


def plot_run(
    run_dir: str | Path,
    metrics: Sequence[Record],
    reward_history: Sequence[Mapping[str, Any]] = (),
    *,
    before: Accuracy | None = None,
    teacher: Accuracy | None = None,
) -> list[Path]:
    """Draws what there is data for into `<run>/plots/`: accuracy.png, reward.png, mask.png; returns their paths.

    `metrics` are the records of metrics.jsonl, `reward_history` those of reward_histogram.jsonl. `before` and
    `teacher` are the student's and the teacher's accuracy on the problems of `validation/accuracy`.
    """
    import matplotlib

    directory = Path(run_dir) / "plots"
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(_STYLE):
        for name, figure in (
            ("accuracy.png", _accuracy_figure(metrics, before, teacher)),
            ("reward.png", _reward_figure(metrics, reward_history)),
            ("mask.png", _mask_figure(metrics)),
        ):
            if figure is not None:
                figure.savefig(directory / name, dpi=150, metadata={"Software": None})
                paths.append(directory / name)
    return paths


def _figure(rows: int = 1, height: float = 4.4, **options: Any) -> tuple[Figure, Any]:
    # Without pyplot: no display is looked for and no global state is left behind.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, height), layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, 1, **options)


def _series(metrics: Sequence[Record], name: str, over: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """The finite values of a metric and where they stand; `over` starts at 0 and is carried over where it lacks."""
    places, values, place = [], [], 0.0
    for record in metrics:
        place = record.get(over, place)
        if math.isfinite(record.get(name, math.nan)):
            places.append(place)
            values.append(record[name])
    return np.asarray(places), np.asarray(values)


def _accuracy_figure(metrics: Sequence[Record], before: Accuracy | None, teacher: Accuracy | None) -> Figure | None:
    from matplotlib.ticker import PercentFormatter, StrMethodFormatter

    over = "rollout/total" if any("rollout/total" in record for record in metrics) else "step"
    rollouts, values = _series(metrics, "validation/accuracy", over)
    if not values.size:
        return None
    figure, axes = _figure()
    if teacher is not None:
        axes.axhspan(*teacher.interval, color=_GREEN, alpha=0.13, linewidth=0)
        axes.axhline(teacher.value, color=_GREEN, linewidth=1.5)
    if before is not None:
        axes.axhline(before.value, color=_GREY, linewidth=1.5, linestyle=(0, (4, 3)))
    _, sizes = _series(metrics, "validation/num", over)
    if len(sizes) == len(values):
        points = [Accuracy(round(value * size), int(size)) for value, size in zip(values, sizes, strict=True)]
        lows, highs = zip(*(point.interval for point in points), strict=True)
        axes.fill_between(rollouts, lows, highs, color=_BLUE, alpha=0.15, linewidth=0)
    axes.plot(rollouts, values, color=_BLUE, marker="o", markersize=4.5)
    _label_levels(axes, rollouts, values, before, teacher)
    count = f" (N = {int(sizes[-1]):,} problems)" if len(sizes) else ""
    axes.set_title(f"Held-out accuracy against {'rollouts used' if over != 'step' else 'steps'}")
    axes.set_xlabel("rollouts used for training" if over != "step" else "step")
    axes.set_ylabel(f"accuracy{count}")
    axes.set_ylim(0, 1.09)  # room for a label above 100 %
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.supxlabel("bands: 95% Wilson intervals", fontsize=8, color=_GREY, x=0.99, ha="right")
    return figure


def _note(axes: Axes, text: str, at: tuple[float, float], shift: tuple[int, int], coords: Any, **style: Any) -> None:
    """Writes `text` `shift` points away from `at`."""
    axes.annotate(text, at, xytext=shift, xycoords=coords, textcoords="offset points", **{"fontsize": 9, **style})


def _label_levels(
    axes: Axes, places: np.ndarray, values: np.ndarray, before: Accuracy | None, teacher: Accuracy | None
) -> None:
    """Names on the lines instead of a legend: the levels at the margins, the student at its last point."""
    margin, gained = axes.get_yaxis_transform(), before is None or values[-1] >= before.value
    if teacher is not None:
        top = (0.01, teacher.interval[1])
        _note(axes, f"teacher {teacher.value:.1%}", top, (0, 3), margin, va="bottom", color=_GREEN)
    if before is not None:
        text, (shift, va) = f"student before {before.value:.1%}", (-4, "top") if gained else (4, "bottom")
        _note(axes, text, (0.99, before.value), (0, shift), margin, ha="right", va=va, color=_GREY)
    last, (shift, va) = (places[-1], values[-1]), (7, "bottom") if gained and values[-1] < 0.8 else (-14, "top")
    _note(axes, f"student {values[-1]:.1%}", last, (0, shift), "data", ha="right", va=va, color=_BLUE, weight="bold")


def _reward_figure(metrics: Sequence[Record], history: Sequence[Mapping[str, Any]]) -> Figure | None:
    from matplotlib.ticker import FuncFormatter

    history = [record for record in history if sum(record["counts"])]
    if not history:
        return None
    # A tenth of the run at each end, so that a single odd step does not stand for the run.
    width = max(1, len(history) // 10)
    ends = [(history[:width], _ORANGE, 0.20), (history[-width:], _BLUE, 0.15)]
    figure, axes = _figure()
    edges = np.asarray(history[0]["edges"])
    for records, colour, alpha in ends if len(history) > 1 else ends[:1]:
        counts = np.sum([record["counts"] for record in records], axis=0)
        shares = counts / counts.sum()
        axes.stairs(shares, edges, baseline=0, fill=True, color=colour, alpha=alpha)
        axes.stairs(shares, edges, baseline=0, color=colour, linewidth=1.6, label=_steps_label(records, metrics))
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5 / max(sum(sum(record["counts"]) for record in records) for records, *_ in ends), top=2.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    _, floors = _series(metrics, "reopold/floor")
    if floors.size:
        axes.axvline(floors[-1], color="#111827", linewidth=1.4, linestyle=(0, (4, 3)))
        text, margin = f"floor {floors[-1]:.2f}", axes.get_xaxis_transform()
        _note(axes, text, (floors[-1], 0.97), (-6, 0), margin, ha="right", va="top", color="#111827")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_title("Token rewards R at the start and the end of training")
    axes.set_xlabel("R = log p(teacher) - log p(student) of the sampled token, nats (end bins hold what lies beyond)")
    axes.set_ylabel("share of response tokens (log scale)")
    axes.legend(loc="upper left", fontsize=9)
    return figure


def _steps_label(records: Sequence[Mapping[str, Any]], metrics: Sequence[Record]) -> str:
    first, last = records[0]["step"], records[-1]["step"]
    label = f"step {first}" if first == last else f"steps {first} to {last}"
    steps, clipped = _series(metrics, "reopold/clipped")
    inside = clipped[(steps >= first) & (steps <= last)]
    return f"{label}: {inside.mean():.1%} below the floor" if len(inside) else label


def _mask_figure(metrics: Sequence[Record]) -> Figure | None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    shares = [
        (_series(metrics, "mask/kept"), _BLUE, "-", "kept by the mask"),
        (_series(metrics, "reopold/clipped"), _ORANGE, (0, (5, 2)), "below the floor (clipped)"),
    ]
    entropy_steps, entropy = _series(metrics, "student/entropy")
    if not len(entropy) and not any(len(values) for (_, values), *_ in shares):
        return None
    figure, (top, bottom) = _figure(2, height=5.6, sharex=True, height_ratios=[3, 2])
    for (steps, values), colour, line, label in shares:
        if len(values):
            top.plot(steps, values, color=colour, linestyle=line, label=label, **_dots(values))
    if top.lines:
        top.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=2, fontsize=9)
    top.set_ylim(-0.02, 1.04)
    top.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    top.set_ylabel("share of response tokens")
    top.set_title("Which tokens are trained on, and how sure the student is", pad=26)
    bottom.plot(entropy_steps, entropy, color=_GREEN, **_dots(entropy))
    bottom.set_ylim(0, 1.15 * max([*entropy, 0.01]))
    bottom.set_ylabel("mean entropy, nats")
    bottom.set_xlabel("step")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _mark_switch(metrics, top, bottom)
    return figure


def _dots(values: np.ndarray) -> dict[str, Any]:
    """Markers where there are few points: a line through one point would be invisible."""
    return {"marker": "o", "markersize": 3.5} if len(values) <= 30 else {}


def _mark_switch(metrics: Sequence[Record], top: Axes, bottom: Axes) -> None:
    """A vertical line where the phase goes from exploration (0) to refinement (1), if it does."""
    steps, phases = _series(metrics, "reopold/phase")
    turned = [index for index in range(1, len(phases)) if phases[index - 1] == 0 and phases[index] == 1]
    if not turned:
        return
    switch = steps[turned[0]] - 0.5
    for axes in (top, bottom):
        axes.axvline(switch, color="#111827", linewidth=1.2, linestyle=(0, (1, 2)))
    for text, offset, side in (("exploration", -6, "right"), ("refinement", 6, "left")):
        _note(top, text, (switch, 0.5), (offset, 0), top.get_xaxis_transform(), ha=side, va="center", color="#374151")
