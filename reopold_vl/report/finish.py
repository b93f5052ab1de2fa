"""What a finished run leaves behind: table, plots, the page of rollouts and summary.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reopold_vl.report.page import write_page
from reopold_vl.report.plots import plot_run, read_histograms
from reopold_vl.report.stats import Accuracy
from reopold_vl.report.table import Graded, gain_line, print_table, tabulate, to_markdown
from reopold_vl.runlog import METRICS_FILE, REWARD_HISTOGRAM_FILE, read_metrics, replace_text
from reopold_vl.showcase import FILE as SHOWCASE_FILE
from reopold_vl.showcase import read_rollouts

MODELS = ("before", "after", "teacher")


def draw_plots(run_dir: Path, teacher_on_validation: Sequence[Graded]) -> list[Path]:
    """The plots of what has been logged so far; also while a run goes on."""
    metrics = read_metrics(run_dir / METRICS_FILE)
    first = next((record for record in metrics if "validation/accuracy" in record), None)
    before = None
    if first is not None and first["rollout/total"] == 0:
        total = int(first["validation/num"])
        before = Accuracy(round(first["validation/accuracy"] * total), total)
    teacher = to_accuracy(teacher_on_validation) if teacher_on_validation else None
    history = read_histograms(run_dir / REWARD_HISTOGRAM_FILE)
    return plot_run(run_dir, metrics, history, before=before, teacher=teacher)


def to_accuracy(graded: Sequence[Graded]) -> Accuracy:
    return Accuracy(sum(item.correct for item in graded), len(graded))


def draw_page(run_dir: Path, settings: Mapping[str, object]) -> Path:
    """rollouts.html from the kept rollouts."""
    path = run_dir / "rollouts.html"
    write_page(path, read_rollouts(run_dir / SHOWCASE_FILE), title=f"Rollouts of {run_dir.name}", settings=settings)
    return path


def print_and_write_table(run_dir: Path, graded: Mapping[str, Sequence[Graded]], *, seed: int) -> None:
    """The before/after/teacher table on the terminal and as report.md."""
    rows = tabulate(graded["before"], graded["after"], graded["teacher"])
    gain = gain_line(graded["before"], graded["after"], seed=seed)
    print_table(rows)
    print(gain)
    replace_text(run_dir / "report.md", f"# {run_dir.name}\n\n{to_markdown(rows)}\n\n{gain}\n")


def write_summary(path: Path, graded: Mapping[str, Sequence[Graded]], **facts: Any) -> dict[str, Any]:
    """summary.json: accuracies with 95 % Wilson intervals and counts, and the `facts` given.

    A finished run that is only reported again, without a further second of training, keeps its `seconds`.
    """
    before = json.loads(path.read_text(encoding="utf-8")).get("seconds") if path.is_file() else None
    if before and before["train"] == facts.get("seconds", {}).get("train"):
        facts["seconds"] = before
    values = {name: to_accuracy(graded[name]) for name in MODELS if graded[name]}
    summary = {
        "accuracy": {name: values[name].value if name in values else None for name in MODELS},
        "interval": {name: values[name].interval if name in values else None for name in MODELS},
        "num_problems": len(graded["after"]),
        **facts,
    }
    replace_text(path, json.dumps(summary, indent=2) + "\n")
    return summary
