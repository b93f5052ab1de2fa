"""vision.md and vision.png, from the content of vision.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reopold_vl.compare.tables import table
from reopold_vl.compare.vision_summary import CONDITIONS, Figure

HEADS = {"right": "right picture", "removed": "removed", "swapped": "another's", "pixelated": "pixelated"}


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, dict[str, Figure]]]:
    """(label, figures) of the models: before, each arm after, teacher; before and teacher by arm where they differ."""
    arms: Mapping[str, Any] = result["arms"]
    found: list[tuple[str, dict[str, Figure]]] = []
    for role, label in (("before", "student before"), ("after", ""), ("teacher", "teacher")):
        alike = role != "after" and all(arm[role] == next(iter(arms.values()))[role] for arm in arms.values())
        for name, arm in arms.items():
            own = f"{name}, after" if role == "after" else label if alike else f"{label}, {name}"
            if not (alike and found and found[-1][0] == own):
                found.append((own, arm[role]))
    return found


def to_markdown(result: Mapping[str, Any]) -> str:
    """The figures as two tables: the models, and what changed from before to after."""
    num = " to ".join(f"{count:,}" for count in sorted({result["num"][0], result["num"][-1]}))
    dropped = max(result["without_picture"])
    without = f" ({dropped:,} without one left out)" if dropped else ""
    head = [
        *HEADS.values(),
        "right minus another's",
        "VA",
        f"VA > {result['threshold']:g}",
        "VA, teacher's",
    ]
    seeds = sorted({len(arm["seeds"]) for arm in result["arms"].values()})
    lines = [
        f"# What the answers of {result['title']} owe to the picture",
        "",
        f"Greedy accuracy in percent on {num} test problems with a picture{without}: with the right picture, without "
        "it, with that of the next problem of the same type, and with it pixelated to a tenth of each side. VA is the "
        "mean over the tokens of a model's own answers of log pi(y | picture) - log pi(y | pixelated picture) in nats, "
        f"under the model itself; VA > {result['threshold']:g} the share of tokens, in percent; VA, teacher's the mean "
        "under the teacher. Brackets are 95 % percentile bootstrap intervals, over seeds where there are several, else "
        "over problems." + _few(seeds),
        "",
        *table(["", *head], [_row(label, figures) for label, figures in rows_of(result)]),
        "",
        "After minus before, paired:",
        "",
        *table(
            ["", "seeds", *head],
            [
                [name, str(len(arm["seeds"])), *_row("", arm["change"], signed=True)[1:]]
                for name, arm in result["arms"].items()
            ],
        ),
    ]
    lines += [line for failure in _failures(result) for line in ("", failure)]
    if result["unfinished"]:
        lines += ["", f"Not finished and left out: {', '.join(result['unfinished'])}."]
    return "\n".join([*lines, "", f"{result['cpu_seconds']:,.0f} CPU seconds."]) + "\n"


def _few(seeds: Sequence[int]) -> str:
    return " With so few seeds they are too narrow." if any(1 < count < 5 for count in seeds) else ""


def _failures(result: Mapping[str, Any]) -> list[str]:
    """One line for each model that could not be shown some of the problems, in the worst of its conditions."""
    models = result["models"].values()
    counts = [(one, max(condition["failed"] for condition in one["conditions"].values())) for one in models]
    return [
        f"Could not be shown to {one['role']} of {one['run']} and count as wrong: {count} of {one['num']:,}."
        for one, count in counts
        if count
    ]


def _row(label: str, figures: Mapping[str, Figure], *, signed: bool = False) -> list[str]:
    percent = [_cell(figures[name], 100, signed) for name in CONDITIONS]
    gain = _cell(figures["right_minus_swapped"], 100, True)
    own = [_cell(figures["own_advantage"], 1, signed), _cell(figures["own_share_above"], 100, signed)]
    return [label, *percent, gain, *own, _cell(figures["teacher_advantage"], 1, signed)]


def _cell(figure: Figure, scale: float, signed: bool) -> str:
    if figure is None:
        return "-"
    digits = 1 if scale == 100 else 2

    def shown(value: float) -> str:
        return f"{scale * value:+.{digits}f}" if signed else f"{scale * value:.{digits}f}"

    bounds = "" if figure["low"] is None else f" [{shown(figure['low'])}, {shown(figure['high'])}]"
    return shown(figure["mean"]) + bounds


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Bars of accuracy by condition and of visual advantage per token, one of each for every model; a PNG."""
    from matplotlib.figure import Figure as Canvas

    colours = ("#6B7280", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    rows = rows_of(result)
    canvas = Canvas(figsize=(max(9.0, 6 + 0.5 * len(rows)), 4.6), layout="constrained")
    left, right = canvas.subplots(1, 2, width_ratios=(3, 2))
    groups = (
        (left, [*CONDITIONS], [*HEADS.values()], 100, "accuracy, %"),
        (right, ["own_advantage", "teacher_advantage"], ["under itself", "under the teacher"], 1, "VA per token, nats"),
    )
    width = 0.84 / len(rows)
    for plot, names, labels, scale, title in groups:
        for index, (label, figures) in enumerate(rows):
            shown = [(place, figure) for place, name in enumerate(names) if (figure := figures[name]) is not None]
            places = [place + (index - (len(rows) - 1) / 2) * width for place, _ in shown]
            means = [scale * figure["mean"] for _, figure in shown]
            reach = [[_reach(figure, scale, end) for _, figure in shown] for end in ("low", "high")]
            style = {"color": colours[index % len(colours)], "hatch": ("", "///", "...")[index // len(colours) % 3]}
            plot.bar(places, means, 0.9 * width, **style, label=label, yerr=reach, error_kw={"elinewidth": 1})
        plot.set_xticks(range(len(labels)), labels)
        plot.set_title(title, fontsize=10)
        plot.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 100)
    canvas.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    canvas.savefig(path, dpi=140)


def _reach(figure: Mapping[str, Any], scale: float, end: str) -> float:
    """How far the interval goes to one side of the mean; 0 where there is none."""
    return 0.0 if figure[end] is None else scale * abs(figure[end] - figure["mean"])
