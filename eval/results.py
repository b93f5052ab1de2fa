"""results.json: lmms-eval's layout, so that tools for it read ours, and all our own figures under `reopold_vl`."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import reopold_vl
from eval.pace import Speed
from eval.score import Outcome, Share, Summary

RATES = ("unparsed", "refusal", "truncated", "failed")


def results(
    outcomes: Sequence[Outcome], role: str, *, run: Mapping[str, Any], seconds: float, speed: Speed | None
) -> dict[str, Any]:
    """The content of results.json for `role`, "model" or "baseline".

    `run` is what run.json says of how the answers were made ({} where it is lost), `seconds` the time of this command.
    All but `date`, the times and `git_hash` is a function of the responses and the scorer.
    """
    held = [(outcome, outcome.summaries[role]) for outcome in outcomes if role in outcome.summaries]
    name = held[0][1].model if held else ""
    now = time.time()
    return {
        "results": {outcome.bench.name: task_results(summary) for outcome, summary in held},
        "group_subtasks": {outcome.bench.name: [] for outcome, _ in held},
        "configs": {outcome.bench.name: _task_config(outcome, summary) for outcome, summary in held},
        "versions": {outcome.bench.name: reopold_vl.__version__ for outcome, _ in held},
        "n-shot": {outcome.bench.name: 0 for outcome, _ in held},
        "higher_is_better": {outcome.bench.name: {"acc": True} for outcome, _ in held},
        "n-samples": {outcome.bench.name: _num_samples(outcome, summary) for outcome, summary in held},
        "config": _run_config(name, role, held[0][0].info if held else {}, run),
        "git_hash": _git_hash(),
        "date": now,
        "torch_version": run.get("versions", {}).get("torch"),
        "transformers_version": run.get("versions", {}).get("transformers"),
        "model_source": "reopold_vl",
        "model_name": name,
        "model_name_sanitized": name.replace("/", "__"),
        "system_instruction": None,
        "chat_template": None,
        "start_time": now - seconds,
        "end_time": now,
        "total_evaluation_time_seconds": str(round(seconds, 3)),
        "throughput": _throughput([summary for _, summary in held]),
        "reopold_vl": {
            "version": reopold_vl.__version__,
            "command": run.get("command", ""),
            "benches": {outcome.bench.name: _details(outcome, summary) for outcome, summary in held},
            "speed": asdict(speed) if speed is not None else None,
        },
    }


def task_results(summary: Summary) -> dict[str, Any]:
    """One task's figures under lmms-eval's names, `metric,filter`; "N/A" where there is none."""
    accuracy = summary.accuracy
    figures: dict[str, Any] = {
        "alias": summary.bench.name,
        "acc,none": accuracy.value if accuracy else "N/A",
        "acc_stderr,none": accuracy.standard_error if accuracy else "N/A",
    }
    extra = {name.replace(",", " "): value for name, value in summary.metrics.items()}
    extra |= {f"pass@{k}": value for k, value in summary.pass_at.items()}
    extra |= {f"maj@{k}": value for k, value in summary.maj_at.items()}
    extra |= {f"{name}_rate": summary.rate(name) for name in RATES}
    for name, value in extra.items():
        figures |= {f"{name},none": value, f"{name}_stderr,none": "N/A"}
    return figures


def _task_config(outcome: Outcome, summary: Summary) -> dict[str, Any]:
    info = outcome.info
    settings = info.get("settings", {})
    sampled = {name: settings.get(name) for name in ("max_new_tokens", "temperature", "top_p")}
    return {
        "task": outcome.bench.name,
        "dataset_path": info.get("origin"),
        "dataset_revision": info.get("revision") or None,
        "test_split": info.get("split"),
        "output_type": "generate_until",
        "num_fewshot": 0,
        "repeats": summary.samples,
        "generation_kwargs": {**sampled, "do_sample": bool(settings.get("temperature"))},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"prompt": info.get("prompt"), "scorer": summary.scorer, "licence": outcome.bench.licence},
    }


def _num_samples(outcome: Outcome, summary: Summary) -> dict[str, int]:
    """`original`: all rows looked at; `effective`: problems with a scored answer."""
    problems = len({item.response.problem.id for item in summary.graded})
    unreadable = len(outcome.info.get("failed_rows", ()))
    return {"original": problems + unreadable, "effective": summary.accuracy.problems if summary.accuracy else 0}


def _run_config(name: str, role: str, info: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    settings = info.get("settings", {})
    arguments = {"pretrained": name, **{key: settings.get(key) for key in ("dtype", "min_pixels", "max_pixels")}}
    seed = settings.get("seed")
    return {
        "model": "reopold_vl",
        "model_args": ",".join(f"{key}={value}" for key, value in arguments.items()),
        "model_revision": info.get("identity", {}).get(role),
        "model_num_parameters": info.get("parameters", {}).get(role),
        "model_dtype": settings.get("dtype"),
        "batch_size": run.get("batch_size"),
        "batch_sizes": [],
        "device": run.get("device"),
        "use_cache": None,
        "limit": info.get("limit"),
        "bootstrap_iters": 10_000,
        "gen_kwargs": None,
        "random_seed": seed,
        "numpy_seed": seed,
        "torch_seed": seed,
        "fewshot_seed": None,
    }


def _details(outcome: Outcome, summary: Summary) -> dict[str, Any]:
    """What lmms-eval's layout has no place for."""
    comparison = outcome.comparison
    return {
        "model": summary.model,
        "scorer": summary.scorer,
        "prompt": outcome.info.get("prompt"),
        "headline": {"name": summary.bench.headline, "value": _headline(summary)},
        "accuracy": share_values(summary.accuracy),
        "samples_per_problem": summary.samples,
        "counts": {name: getattr(summary, name) for name in RATES},
        "rates": {name: summary.rate(name) for name in RATES},
        "failed_rows": list(outcome.info.get("failed_rows", ())),
        "mean_tokens": summary.tokens,
        "mean_seconds": summary.seconds,
        "metrics": dict(summary.metrics),
        "breakdown": {
            tag: {value: share_values(part) for value, part in values.items()}
            for tag, values in summary.breakdown.items()
        },
        "pass_at": {str(k): value for k, value in summary.pass_at.items()},
        "maj_at": {str(k): value for k, value in summary.maj_at.items()},
        "judge": dict(summary.judged) or None,
        "comparison": asdict(comparison) if comparison else None,
        "notes": list(outcome.notes),
    }


def _headline(summary: Summary) -> float | None:
    if summary.bench.headline == "accuracy":
        return summary.accuracy.value if summary.accuracy else None
    return summary.headline[1] if summary.headline else None


def _throughput(summaries: Sequence[Summary]) -> dict[str, float]:
    """Tokens and seconds of the generation of all answers, under lmms-eval's names; the speed is in tokens a second."""
    answers = [item.response for summary in summaries for item in summary.graded if item.verdict is not None]
    tokens, seconds = sum(item.tokens for item in answers), sum(item.seconds for item in answers)
    speed = tokens / seconds if seconds else 0.0
    return {"total_gen_tokens": tokens, "total_elapsed_time": seconds, "avg_speed": speed}


def finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def share_values(share: Share | None) -> dict[str, Any] | None:
    """A share as JSON."""
    return None if share is None else {**asdict(share), "interval": list(share.interval)}


def _git_hash() -> str | None:
    """The commit of the checkout that this runs from; None for an installed package or without git."""
    place = Path(__file__).resolve().parents[1]
    if not (place / ".git").exists():
        return None
    command = ["git", "-C", str(place), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
