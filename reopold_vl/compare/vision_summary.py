"""From measurements to figures with intervals: what `vision.json` says of each arm before, after and in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reopold_vl.compare.curves import mean_interval
from reopold_vl.compare.paired import interval

CONDITIONS = ("right", "removed", "swapped", "pixelated")
ADVANTAGES = ("own", "teacher")
RESAMPLES = 2_000

Measured = Mapping[str, Any]
Pair = tuple[Measured, Measured | None]
Figure = dict[str, Any] | None


def summarise(
    runs: Sequence[Mapping[str, Any]], *, title: str, threshold: float, unfinished: Sequence[str]
) -> dict[str, Any]:
    """The content of vision.json from the runs' measurements (`arm`, `seed`, `before`, `after`, `teacher` each).

    By arm and role: accuracies, what the right picture adds to them (on the same problems), visual advantages, and the
    change from before to after, paired by seed. Intervals are 95 % percentile bootstraps over seeds; where there is
    but one measurement, over its problems (none for advantages).
    """
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        arms.setdefault(run["arm"], []).append(run)
    seen: dict[tuple[str, ...], dict[str, Figure]] = {}

    def figures(models: Sequence[Measured], minus: Sequence[Measured] = ()) -> dict[str, Figure]:
        unique = list({key: pair for key, pair in _pairs(models, minus)}.values())
        place = tuple(key for key, _ in _pairs(models, minus))
        if place not in seen:
            seen[place] = {name: _figure(name, unique) for name in _names()}
        return seen[place]

    return {
        "title": title,
        "threshold": threshold,
        "unfinished": list(unfinished),
        "num": sorted({run["after"]["num"] for run in runs}),
        "without_picture": sorted({run["after"]["without_picture"] for run in runs}),
        "cpu_seconds": sum({one["key"]: one["cpu_seconds"] for run in runs for one in _models(run)}.values()),
        "arms": {
            arm: {
                "seeds": [run["seed"] for run in own],
                **{role: figures([run[role] for run in own]) for role in ("before", "after", "teacher")},
                "change": figures([run["after"] for run in own], [run["before"] for run in own]),
            }
            for arm, own in arms.items()
        },
        "runs": [{name: run[name] for name in ("arm", "seed", "directory")} | _keys(run) for run in runs],
        "models": {one["key"]: {k: v for k, v in one.items() if k != "key"} for run in runs for one in _models(run)},
    }


def _models(run: Mapping[str, Any]) -> list[Measured]:
    return [run[role] for role in ("before", "after", "teacher")]


def _keys(run: Mapping[str, Any]) -> dict[str, str]:
    return {role: run[role]["key"] for role in ("before", "after", "teacher")}


def _pairs(models: Sequence[Measured], minus: Sequence[Measured]) -> list[tuple[str, Pair]]:
    others = list(minus) or [None] * len(models)
    return [(f"{a['key']} {b['key'] if b is not None else ''}", (a, b)) for a, b in zip(models, others, strict=True)]


def _names() -> list[str]:
    gains = [f"right_minus_{name}" for name in CONDITIONS if name != "right"]
    return [*CONDITIONS, *gains, *(f"{kind}_{part}" for kind in ADVANTAGES for part in ("advantage", "share_above"))]


def _figure(name: str, pairs: Sequence[Pair]) -> Figure:
    """Mean and interval of one figure, or of its difference within each pair; None where a model has none."""
    values = [_difference(_value(name, a), _value(name, b) if b is not None else 0.0) for a, b in pairs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if len(pairs) > 1:
        return {**interval(known), "over": "seeds"}
    each = _over_problems(name, *pairs[0])
    low, high = mean_interval(each.tolist(), resamples=RESAMPLES)[1:] if each is not None else (None, None)
    return {"mean": known[0], "low": low, "high": high, "over": "problems", "values": known}


def _difference(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _value(name: str, model: Measured) -> float | None:
    each = _each(name, model)
    if each is not None:
        return float(each[~np.isnan(each)].mean()) if not np.isnan(each).all() else None
    kind, _, part = name.partition("_")
    found = model["visual_advantage"][kind]
    return None if found is None else found["mean" if part == "advantage" else part]


def _over_problems(name: str, ours: Measured, theirs: Measured | None) -> np.ndarray | None:
    """The figure's share in each problem that has one, or the difference of two models; None for advantages."""
    each, other = _each(name, ours), None if theirs is None else _each(name, theirs)
    if each is None:
        return None
    each = each if other is None else each - other
    return each[~np.isnan(each)]


def _each(name: str, model: Measured) -> np.ndarray | None:
    """Per problem 1 or 0, or the difference of two verdicts; NaN where the problem was not asked."""
    first, _, less = name.partition("_minus_")
    if first not in CONDITIONS:
        return None
    marks = {"1": 1.0, "0": 0.0, "x": 0.0, "-": np.nan}
    ours, *rest = (
        np.array([marks[mark] for mark in model["conditions"][one]["verdicts"]]) for one in (first, less) if one
    )
    return ours - rest[0] if rest else ours
