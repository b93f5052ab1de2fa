"""One setting at a time: the arms of an ablation that differ from its centre in one setting, as small multiples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reopold_vl.compare.tables import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CENTRE, VARIED = "#D55E00", "#000000"
SWEEPS = {
    "lambda": ("objective", "mixture"),
    "beta": ("objective", "entropy_share"),
    "T_switch": ("objective", "switch_step"),
    "n": ("rollout", "n"),
    "updates a batch": ("optim", "updates_per_batch"),
}


def sweeps(result: Result) -> Figure | None:
    """Test accuracy against each swept setting, a panel each, with intervals and the seeds' own points."""
    from matplotlib.figure import Figure

    found = {name: values for name in SWEEPS if len(values := swept(result, name)) > 2}
    if not found:
        return None
    figure = Figure(figsize=(2.7 * len(found) + 0.4, 3.4), layout="constrained")
    places = figure.subplots(1, len(found), squeeze=False, sharey=True).ravel()
    teacher = 100 * result["arms"][centre_of(result)]["teacher"]
    for place, (name, values) in zip(places, found.items(), strict=True):
        for x, (_, accuracy, centre) in enumerate(values):
            mean, low, high = (100 * accuracy[key] for key in ("mean", "low", "high"))
            seeds = [100 * value for value in accuracy["values"]]
            place.scatter([x] * len(seeds), seeds, s=9, color="#B6BCC6")
            style = {"fmt": "o", "capsize": 3, "markersize": 5, "color": CENTRE if centre else VARIED}
            place.errorbar(x, mean, [[mean - low], [high - mean]], **style)
        place.axhline(teacher, color="#6B7280", linestyle=(0, (1, 2)), linewidth=1.4)
        place.set_xticks(range(len(values)), [label for label, *_ in values])
        place.set_xlim(-0.5, len(values) - 0.5)
        place.set_title(name, fontsize=10)
        place.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel("test accuracy, %")
    figure.supxlabel("orange: the setting that the others vary; grey: single seeds; dotted: teacher", fontsize=8)
    return figure


def swept(result: Result, name: str) -> list[tuple[str, Mapping[str, Any], bool]]:
    """(value, accuracy, whether it is the centre) of the arms that differ from the centre in this setting alone."""
    centre = centre_of(result)
    if centre is None:
        return []
    wanted = _settings(result, centre)
    found: dict[Any, tuple[Mapping[str, Any], bool]] = {wanted[name]: (result["arms"][centre]["test_accuracy"], True)}
    for arm, entry in result["arms"].items():
        settings = _settings(result, arm)
        alike = entry["objective"] == result["arms"][centre]["objective"]
        if alike and {**settings, name: wanted[name]} == wanted and settings[name] not in found:
            found[settings[name]] = (entry["test_accuracy"], False)
    order = sorted(found, key=lambda value: float("inf") if value is None else value)  # T_switch None: never
    return [("never" if value is None else f"{value:g}", *found[value]) for value in order]


def centre_of(result: Result) -> str | None:
    """The first arm of the paper's objective: what an ablation's other arms change."""
    return next((name for name, arm in result["arms"].items() if arm["objective"] == "reopold"), None)


def _settings(result: Result, arm: str) -> dict[str, Any]:
    """An arm's value of each setting: its own, or the base's."""
    entry, base = result["arms"][arm], result["base"]
    own = base["objective"] if base["objective"]["name"] == entry["objective"] else {}
    groups = {**entry["changes"], "objective": {**own, **entry["settings"]}}
    return {name: groups.get(group, {}).get(field, base[group].get(field)) for name, (group, field) in SWEEPS.items()}
