"""The pictures of a comparison, drawn from comparison.json alone: learning curves, what was watched, R's tail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reopold_vl.compare.sweeps import sweeps
from reopold_vl.compare.tables import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette; the arms that most studies have keep their colours from picture to picture.
FIXED = {"reopold": "#D55E00", "both phases": "#D55E00", "reverse_kl": "#0072B2", "neither": "#0072B2"}
FIXED |= {"grpo": "#009E73", "gkd": "#CC79A7", "sft": "#E69F00"}
OTHERS = ("#56B4E9", "#6B7280", "#000000", "#8C564B", "#7F7FFF", "#BCBD22")
DASHES = ("-", "--", ":", "-.")
BANDS = 8  # arms beyond which bands would hide the lines
GREY = "#6B7280"
AXES = {"rollouts": "rollouts", "tokens": "response tokens", "cpu_seconds": "CPU seconds of training"}
TAIL = {
    "reward/p01": "1st percentile of R, nats",
    "reward/p10": "10th percentile of R, nats",
    "reward/min": "lowest R of the step, nats",
    "reward/below_1.72": "tokens with R < -1.72, %",
    "reward/below_5": "tokens with R < -5, %",
    "reward/below_10": "tokens with R < -10, %",
}


def draw(result: Result, directory: Path) -> list[Path]:
    """All pictures that the study has data for; the PNGs written."""
    directory.mkdir(parents=True, exist_ok=True)
    return [path for name in PICTURES if (path := draw_one(result, name, directory / f"{name}.png")) is not None]


def draw_one(result: Result, name: str, path: Path, *, dpi: int = 110) -> Path | None:
    """One of PICTURES as a PNG of 256 colours, which is small; None where the study has no data for it."""
    import io

    from PIL import Image

    figure = PICTURES[name](result)
    if figure is None:
        return None
    file = io.BytesIO()
    figure.savefig(file, dpi=dpi, facecolor="white")
    with Image.open(file) as image:
        # The octree keeps hues that the default, median cut, merges: orange and red lines must stay apart.
        small = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    return path


def style_of(result: Result) -> dict[str, tuple[str, str]]:
    """A colour and a dash for each arm, the same in all pictures of a study; `gkd 0.001` has gkd's colour."""
    styles: dict[str, tuple[str, str]] = {}
    rest = 0
    for name in result["arms"]:
        own = FIXED.get(name) or FIXED.get(name.split(" ")[0])
        free = [dash for dash in DASHES if own and (own, dash) not in styles.values()]
        if own and free:
            styles[name] = (own, free[0])
        else:
            styles[name] = (OTHERS[rest % len(OTHERS)], DASHES[rest // len(OTHERS) % len(DASHES)])
            rest += 1
    return styles


def curves(result: Result, axis: str) -> Figure | None:
    """Held-out accuracy against what was spent."""
    from matplotlib.figure import Figure

    arms, styles = result["arms"], style_of(result)
    if not any(run["curve"][axis][-1] for arm in arms.values() for run in arm["runs"]):
        return None
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    plot = figure.subplots()
    for name, arm in arms.items():
        spent, mean, low, high = _band([run["curve"] for run in arm["runs"]], axis)
        colour, dash = styles[name]
        plot.plot(spent, mean, dash, color=colour, label=name, linewidth=1.8)
        if len(arms) <= BANDS:
            plot.fill_between(spent, low, high, color=colour, alpha=0.14, linewidth=0)
    for level in sorted({arm["teacher_validation"] for arm in arms.values()}):
        plot.axhline(100 * level, color=GREY, linestyle=(0, (1, 2)), linewidth=1.4)
    early = _scale(plot, [run["curve"] for arm in arms.values() for run in arm["runs"]], axis)
    plot.set_xlabel(AXES[axis] + (" (logarithmic after the first evaluation)" if early else ""))
    plot.set_ylabel("validation accuracy, %")
    bands = f"; bands: 95 % over {result['seeds']} seeds" if len(arms) <= BANDS and result["seeds"] > 1 else ""
    plot.set_title(f"{result['title']}\n(dotted: teacher{bands})", fontsize=10)
    _finish(figure, [plot], len(arms))
    return figure


def _scale(plot: Axes, found: Sequence[Mapping[str, list[float]]], axis: str) -> bool:
    """A logarithmic axis where half of what is gained is gained in the first eighth: else the rise would be a wall."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

    rising = [curve for curve in found if max(curve["accuracy"]) > curve["accuracy"][0]]
    early = [_half_way(curve, axis) < curve[axis][-1] / 8 for curve in rising]
    first = min((curve[axis][1] for curve in found if len(curve[axis]) > 2 and curve[axis][1] > 0), default=0)
    last = max(curve[axis][-1] for curve in found)
    logarithmic = bool(first) and 2 * sum(early) > len(early) and last > 4 * first
    if logarithmic:
        plot.set_xscale("symlog", linthresh=first, linscale=0.4)
        steps = [place for power in range(9) for place in (10**power, 2 * 10**power, 5 * 10**power)]
        plot.xaxis.set_major_locator(FixedLocator([0, *(step for step in steps if first <= step <= last)]))
        plot.xaxis.set_minor_locator(NullLocator())
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.set_xlim(0, 1.05 * last)
    plot.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return logarithmic


def _half_way(curve: Mapping[str, list[float]], axis: str) -> float:
    """What had been spent at the first evaluation with half of the gain."""
    accuracy = curve["accuracy"]
    half = (accuracy[0] + max(accuracy)) / 2
    return next(spent for spent, value in zip(curve[axis], accuracy, strict=True) if value >= half)


def _band(found: Sequence[Mapping[str, list[float]]], axis: str) -> tuple[Any, Any, Any, Any]:
    """Mean accuracy in percent with its interval over seeds; the x of a point is the mean of what was spent by then."""
    import numpy as np

    from reopold_vl.compare.curves import mean_interval

    points = min(len(curve["accuracy"]) for curve in found)
    spent = np.mean([curve[axis][:points] for curve in found], axis=0)
    columns = [[100 * curve["accuracy"][index] for curve in found] for index in range(points)]
    intervals = [mean_interval(column, resamples=2_000) for column in columns]
    mean, low, high = (np.array(part) for part in zip(*intervals, strict=True))
    return spent, mean, low, high


def panels(result: Result, titles: Mapping[str, str]) -> Figure | None:
    """Means over seeds of logged metrics against the step, a panel each; shares of tokens in percent."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    arms, styles = result["arms"], style_of(result)
    shown = [name for name in titles if any(arm["watched"].get(name, {}).get("mean") for arm in arms.values())]
    if not shown:
        return None
    rows = (len(shown) + 1) // 2
    figure = Figure(figsize=(10.4, 0.4 + 2.5 * rows), layout="constrained")
    places = list(figure.subplots(rows, 2, squeeze=False).flat)
    for place, name in zip(places, shown, strict=False):
        for label, arm in arms.items():
            line = arm["watched"].get(name) or {"steps": [], "mean": []}
            scale = 100 if "%" in titles[name] else 1
            colour, dash = styles[label]
            values = [scale * value for value in line["mean"]]
            place.plot(line["steps"], values, dash, color=colour, label=label, linewidth=1.4)
        place.set_title(titles[name], fontsize=10)
        place.set_xlabel("step", fontsize=8)
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place in places[len(shown) :]:
        place.set_visible(False)
    _finish(figure, places, len(arms))
    return figure


def _finish(figure: Figure, places: Sequence[Axes], arms: int) -> None:
    """No frames, and one legend to the right of everything."""
    for place in places:
        place.spines[["top", "right"]].set_visible(False)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", frameon=False, handlelength=3, fontsize=8 if arms <= 12 else 7
    )


WATCHED = {
    "student/entropy": "entropy, nats",
    "rollout/length": "response tokens an answer",
    "rollout/accuracy": "accuracy of the sampled answers, %",
    "loss": "loss",
    "mask/kept": "tokens trained on, %",
    "reopold/clipped": "tokens below the floor, %",
}
PICTURES: Mapping[str, Callable[[Result], Figure | None]] = {
    "accuracy_rollouts": lambda result: curves(result, "rollouts"),
    "accuracy_tokens": lambda result: curves(result, "tokens"),
    "accuracy_cpu_seconds": lambda result: curves(result, "cpu_seconds"),
    "watched": lambda result: panels(result, WATCHED),
    "tail": lambda result: panels(result, TAIL),
    "sweeps": sweeps,
}
