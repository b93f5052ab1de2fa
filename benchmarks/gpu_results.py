"""What `benchmarks/gpu.py` found, as a table and as a dated section of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TITLE = "# Results\n"


@dataclass(frozen=True)
class Phase:
    """Medians of one phase. `tokens_per_second` counts the step's answer tokens; `operations` and their `share` of the
    measured rate are None for the optimizer's update; `peak_bytes` includes all that stays on the device."""

    name: str
    seconds: float
    tokens_per_second: float
    operations: float | None
    share: float | None
    peak_bytes: int


@dataclass(frozen=True)
class Training:
    """The phases of a step that trains `lora` or `full`, or why there are none."""

    train: str
    fits: bool
    reason: str
    phases: list[Phase]

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)


@dataclass(frozen=True)
class Report:
    """One run of the benchmark. The parity is |log-prob in bf16 - in float32| of the student, in nats."""

    card: str
    date: str
    torch: str
    size: str
    teacher: str
    student_parameters: int
    teacher_parameters: int
    load: dict[str, Any]
    prompt_tokens: int
    image_tokens: int
    matmul_rate: float
    parity_mean: float
    parity_max: float
    parity_allowed: float
    training: list[Training]

    @property
    def parity_holds(self) -> bool:
        return self.parity_mean <= self.parity_allowed


def heading(report: Report) -> str:
    return f"## One training step of Qwen2.5-VL {report.size} on {report.card}"


def table(report: Report) -> str:
    """The report in Markdown."""
    load = report.load
    verdict = "within" if report.parity_holds else "ABOVE"
    lines = [
        heading(report),
        "",
        f"{report.date}, torch {report.torch}; `python -m benchmarks.gpu --size {report.size}`. Random weights: "
        f"student {report.student_parameters:,} parameters, teacher {report.teacher} with "
        f"{report.teacher_parameters:,}, both bf16. {load['prompts']} prompts of {report.prompt_tokens} tokens "
        f"({report.image_tokens} visual), {load['n']} answers of {load['response']} tokens each; "
        f"{load['rows']} rows a pass, {load['rows_with_gradient']} with gradient.",
        "",
        f"Measured bf16 rate of the device: {report.matmul_rate / 1e12:.4g} TFLOP/s. "
        f"Log-probs in bf16 against float32: mean {report.parity_mean:.1e}, largest {report.parity_max:.1e} nats "
        f"({verdict} {report.parity_allowed:g}).",
        "",
        "| trained | phase | seconds | answer tokens/s | TFLOP | share of the rate | peak memory, GiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for training in report.training:
        if not training.fits:
            lines.append(f"| {training.train} | did not fit: {training.reason} | | | | | |")
        for phase in training.phases:
            done = "" if phase.operations is None else f"{phase.operations / 1e12:.4g}"
            share = "" if phase.share is None else f"{phase.share:.1%}"
            lines.append(
                f"| {training.train} | {phase.name} | {phase.seconds:.3g} | {phase.tokens_per_second:,.0f} | {done} | "
                f"{share} | {phase.peak_bytes / 2**30:.1f} |"
            )
    return "\n".join(lines) + "\n"


def write_section(path: Path, report: Report) -> None:
    """Put the report's section into the page at `path`, in place of the one for the same size and card."""
    page = path.read_text(encoding="utf-8") if path.is_file() else TITLE
    section = table(report)
    old = re.compile(rf"^{re.escape(heading(report))}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(page):
        page = old.sub(lambda _: section + "\n", page, count=1)
    else:
        page = page.rstrip("\n") + "\n\n" + section
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.rstrip("\n") + "\n", encoding="utf-8")
