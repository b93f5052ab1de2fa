"""The tables of a comparison as markdown lines, each of the arms of one pair, from comparison.json alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
Arms = Mapping[str, Mapping[str, Any]]

FEW_RIVALS = 2  # that an arm is compared with, a column each; of more, a row for each comparison
WIDE = 7  # arms beyond which a table by question type lays them out as rows


def pairs(result: Result) -> list[tuple[str, Arms]]:
    """The arms by pair of models and data; the label is empty where there is one pair."""
    groups: dict[int, dict[str, Any]] = {}
    for name, arm in result["arms"].items():
        groups.setdefault(arm["pair_number"], {})[name] = arm
    labels = [next(iter(arms.values()))["pair"] if len(groups) > 1 else "" for arms in groups.values()]
    return list(zip(labels, groups.values(), strict=True))


def accuracy(result: Result, arms: Arms) -> list[str]:
    """Test accuracy before, after and of the teacher."""
    one = next(iter(arms.values()))
    rows = [["student before", percent(one["before"]), points(one["before"] - one["teacher"])]]
    rows += [[name, percent_with(arm["test_accuracy"]), points_with(arm["to_teacher"])] for name, arm in arms.items()]
    return table(["", "test accuracy, %", "minus teacher"], [*rows, ["teacher", percent(one["teacher"]), "0"]])


def validation(result: Result, arms: Arms) -> list[str]:
    """Validation accuracy at the end."""
    one = next(iter(arms.values()))
    rows = [[name, percent_with(arm["validation_accuracy"])] for name, arm in arms.items()]
    return table(["", "validation accuracy, %"], [*rows, ["teacher", percent(one["teacher_validation"])]])


def differences(result: Result, arms: Arms) -> list[str]:
    """Each arm against the reference and reverse_kl on the same seeds; empty without such arms, or with one seed."""
    rivals = list(dict.fromkeys(rival for arm in arms.values() for rival in arm["paired"]))
    if len(rivals) > FEW_RIVALS:
        rows = [[name, rival, *_against(found)] for name, arm in arms.items() for rival, found in arm["paired"].items()]
        return table(["", "minus", "difference", "p", "wins / ties / losses"], rows)
    head = [part for rival in rivals for part in (f"minus {rival}", "p", "wins / ties / losses")]
    rows = [
        [name, *(cell for rival in rivals for cell in _against(arm["paired"].get(rival)))] for name, arm in arms.items()
    ]
    return table(["", *head], rows) if rivals and result["seeds"] > 1 else []


def _against(difference: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if difference is None:
        return "-", "-", "-"
    counts = f"{difference['wins']} / {difference['ties']} / {difference['losses']}"
    return points_with(difference), f"{difference['p']:.3f}", counts


def reached(result: Result, arms: Arms) -> list[str]:
    """Rollouts to each share of the teacher's validation accuracy."""
    shares = _shares(result)
    rows = [[name, *(arm["reached"][key]["text"] for key in shares)] for name, arm in arms.items()]
    return table(["", *(f"to {label} of the teacher" for label in shares.values())], rows)


def ratios(result: Result, arms: Arms) -> list[str]:
    """The reference's rollouts over each arm's; empty without a reference of this pair."""
    shares = _shares(result)
    if not result["reference"] or result["reference"] not in arms:
        return []
    rows = [[name, *(arm["reached"][key].get("ratio_text", "1") for key in shares)] for name, arm in arms.items()]
    return table(["", *(f"to {label}" for label in shares.values())], rows)


def costs(result: Result, arms: Arms) -> list[str]:
    """Tokens and CPU seconds a run, and CPU seconds to each share; empty where runs did not log them."""
    if not any(arm["cpu_seconds"]["mean"] for arm in arms.values()):
        return []
    shares = _shares(result)
    rows = [
        [
            name,
            f"{arm['tokens']['mean'] / 1000:,.0f}",
            f"{arm['cpu_seconds']['mean']:,.0f}",
            arm["scores"],
            *(arm["reached"][key]["cpu_text"] for key in shares),
        ]
        for name, arm in arms.items()
    ]
    head = ["", "response tokens, thousands", "CPU seconds", "teacher's scores in it"]
    return table([*head, *(f"CPU seconds to {label}" for label in shares.values())], rows)


def question_types(result: Result, arms: Arms) -> list[str]:
    """Accuracy by question type: types as rows for few arms, arms as rows for many."""
    kinds = next(iter(arms.values()))["by_type"]
    if len(arms) <= WIDE:
        rows = [
            [f"{kind} ({each['num']:,})", percent(each["before"]), percent(each["teacher"])]
            + [_type_cell(arm["by_type"][kind]) for arm in arms.values()]
            for kind, each in kinds.items()
        ]
        return table(["question type (problems)", "before", "teacher", *arms], rows)
    rows = [[role, *(percent(each[role]) for each in kinds.values())] for role in ("before", "teacher")]
    rows += [[name, *(_type_cell(each, short=True) for each in arm["by_type"].values())] for name, arm in arms.items()]
    return table(["", *(f"{kind} ({each['num']:,})" for kind, each in kinds.items())], rows)


def _type_cell(found: Mapping[str, Any], *, short: bool = False) -> str:
    bounds = "" if short else f" [{percent(found['low'])}, {percent(found['high'])}]"
    return percent(found["after"]) + bounds + (" **falls**" if found["falls"] else "")


def tail(result: Result, arms: Arms) -> list[str]:
    """Quantiles and tail shares of R at the start and the end; empty where runs did not log them."""
    shown = ("reward/p01", "reward/p10", "reward/min", "reward/below_1.72", "reward/below_5", "reward/below_10")
    rows = []
    for name, arm in arms.items():
        lines = [arm["watched"].get(metric, {"mean": []})["mean"] for metric in shown]
        if any(lines):
            rows.append(
                [name, *(_first_last(line, 100 if "below" in m else 1) for m, line in zip(shown, lines, strict=True))]
            )
    head = ["1st percentile", "10th percentile", "lowest", "% below -1.72", "% below -5", "% below -10"]
    return table(["", *head], rows) if rows else []


def _first_last(line: Sequence[float], scale: float) -> str:
    """The first and the last tenth of the steps, as means."""
    if not line:
        return "-"
    width = max(1, len(line) // 10)
    first, last = (scale * sum(part) / width for part in (line[:width], line[-width:]))
    return f"{first:.2f} to {last:.2f}"


def _shares(result: Result) -> dict[str, str]:
    return {f"{share:.2f}": f"{100 * share:.0f} %" for share in result["thresholds"]}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A markdown table's lines."""
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def percent_with(found: Mapping[str, Any]) -> str:
    return percent(found["mean"]) + _bounds(found, percent)


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def points_with(found: Mapping[str, Any]) -> str:
    return points(found["mean"]) + _bounds(found, points)


def _bounds(found: Mapping[str, Any], shown: Callable[[float], str]) -> str:
    """The interval; nothing of a single seed, which has none."""
    return f" [{shown(found['low'])}, {shown(found['high'])}]" if len(found["values"]) > 1 else ""
