"""From answers to everything a run leaves behind: table, results.json, report.md, plots, exports. Needs no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark
from eval.config import EvalConfig, choose
from eval.pace import Speed, summary_lines
from eval.plots import draw
from eval.report import report
from eval.results import finite, results
from eval.score import Outcome, Summary, grade, pair, summarise
from eval.table import print_table
from eval.types import Response
from reopold_vl.runlog import replace_text

RUN_FILE, RESULTS_FILE, REPORT_FILE = "run.json", "results.json", "report.md"
BASELINE_DIR = "baseline"


@dataclass(frozen=True)
class Answers:
    """Stored responses of the model, and of the baseline if there is one, to a benchmark; `info` is run.json's."""

    bench: Benchmark
    model: Sequence[Response]
    baseline: Sequence[Response] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def finish(
    answers: Sequence[Answers],
    config: EvalConfig,
    directory: Path,
    *,
    run: Mapping[str, Any],
    speed: Speed | None,
    seconds: float,
) -> list[Outcome]:
    """Score, print and write; the outcomes. `seconds` is what the command has taken so far."""
    outcomes = [_outcome(item, config) for item in answers]
    print()
    print_table(outcomes)
    if speed is not None:
        print("\n".join(["", *summary_lines(speed)]))
    written = [directory / RESULTS_FILE]
    _write_results(directory, outcomes, "model", run=run, seconds=seconds, speed=speed)
    if any(outcome.baseline for outcome in outcomes):
        _write_results(directory / BASELINE_DIR, outcomes, "baseline", run=run, seconds=seconds, speed=speed)
    pictures = draw(outcomes, directory / "plots", speed)
    replace_text(directory / REPORT_FILE, report(outcomes, run=run, speed=speed, pictures=pictures))
    written += [directory / REPORT_FILE, *pictures]
    for name in config.exports:
        written += _export(name, outcomes, directory)
    print()
    print("written: " + ", ".join(str(path) for path in written))
    return outcomes


def _outcome(item: Answers, config: EvalConfig) -> Outcome:
    ours = _summary(item.bench, item.model, config)
    theirs = _summary(item.bench, item.baseline, config) if item.baseline else None
    notes = (*item.info.get("notes", ()), *item.notes)
    if theirs is None:
        return Outcome(item.bench, ours, notes=notes, info=item.info)
    comparison, remarks = pair(ours.graded, theirs.graded, seed=config.seed)
    return Outcome(item.bench, ours, theirs, comparison, (*notes, *remarks), item.info)


def _summary(bench: Benchmark, responses: Sequence[Response], config: EvalConfig) -> Summary:
    graded = grade(bench, responses, config.scorer)
    if config.judge is None:
        return summarise(bench, graded, config.scorer)
    from eval.judge import Judge, judge_unparsed

    judge = Judge(config.judge, config.judge_model or "")
    graded, tally = judge_unparsed(graded, bench.graders[config.scorer], judge)
    print(f"{bench.name}, {responses[0].model if responses else ''}: {tally}")
    return summarise(bench, graded, config.scorer, tally.counts())


def _write_results(directory: Path, outcomes: Sequence[Outcome], role: str, **facts: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    content = finite(results(outcomes, role, **facts))
    replace_text(directory / RESULTS_FILE, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_run(directory: Path) -> dict[str, Any]:
    """run.json: how the answers that lie beside it were made; {} where there is none that can be read."""
    try:
        run = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    benches = run.get("benches") if isinstance(run, dict) else None
    return run if isinstance(benches, dict) else {}


def check_exports(config: EvalConfig, benches: Sequence[str]) -> None:
    """Raise EvalError for an export that there is not, ExportError for one that fits none of the benchmarks."""
    if not config.exports:
        return
    from eval.export import EXPORTERS

    for name in config.exports:
        choose(name, EXPORTERS, "export")
        if not any(_fits(name, bench) for bench in benches):
            EXPORTERS[name].check(benches[0])


def _fits(name: str, bench: str) -> bool:
    from eval.export import EXPORTERS

    return not EXPORTERS[name].benches or bench in EXPORTERS[name].benches


def _export(name: str, outcomes: Sequence[Outcome], directory: Path) -> list[Path]:
    """The answers of both models to the benchmarks that the format is for, in export/NAME/ of each."""
    from eval.export import EXPORTERS

    written = []
    for outcome in outcomes:
        if not _fits(name, outcome.bench.name):
            continue
        for role, summary in outcome.summaries.items():
            home = directory if role == "model" else directory / BASELINE_DIR
            path = EXPORTERS[name].path(home / "export" / name, outcome.bench.name)
            for note in EXPORTERS[name].write(summary.graded, path):
                print(f"{note} ({summary.model})")
            written.append(path)
    return written
