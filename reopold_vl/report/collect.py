"""`python -m reopold_vl.report.collect runs/a runs/b ...`: finished runs side by side, as a markdown table.

Every number is read from the runs' summary.json; the last line gives means and, over three runs or more, the standard
deviation between them.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("run", "seed", "N", "before", "after", "teacher", "after / teacher", "rollouts", "train s", "total s")


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json of a finished run; raises ValueError for a directory without one."""
    path = run_dir / "summary.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} holds no finished run (summary.json is missing)")
    summary = json.loads(path.read_text(encoding="utf-8"))
    if not summary["num_problems"]:
        raise ValueError(f"{run_dir} was trained without test problems: there is nothing to compare")
    return summary


def to_markdown(runs: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line per run (accuracies in percent with 95 % Wilson intervals) and a line of means."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(_line(name, summary) for name, summary in runs)]
    if len(runs) > 1:
        lines.append(_means([summary for _, summary in runs]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(name: str, summary: dict[str, Any]) -> tuple[str, ...]:
    accuracies = [_accuracy(summary, model) for model in ("before", "after", "teacher")]
    seconds = summary["seconds"]
    counts = (f"{summary['rollouts']:,}", f"{seconds['train']:.0f}", f"{seconds['total']:.0f}")
    return (name, str(summary["seed"]), f"{summary['num_problems']:,}", *accuracies, f"{_share(summary):.3f}", *counts)


def _accuracy(summary: dict[str, Any], model: str) -> str:
    low, high = summary["interval"][model]
    return f"{100 * summary['accuracy'][model]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _share(summary: dict[str, Any]) -> float:
    teacher = summary["accuracy"]["teacher"]
    return summary["accuracy"]["after"] / teacher if teacher else math.nan


def _means(summaries: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    def spread(values: list[float], digits: int) -> str:
        deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 2 else ""
        return f"{statistics.mean(values):.{digits}f}{deviation}"

    accuracies = [
        spread([100 * summary["accuracy"][model] for summary in summaries], 1)
        for model in ("before", "after", "teacher")
    ]
    seconds = [spread([summary["seconds"][name] for summary in summaries], 0) for name in ("train", "total")]
    return ("mean", "", "", *accuracies, spread([_share(summary) for summary in summaries], 3), "", *seconds)


def main(argv: Sequence[str]) -> int:
    """Print the table of the run directories given."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    try:
        print(to_markdown([(Path(path).name, read_summary(Path(path))) for path in argv]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
