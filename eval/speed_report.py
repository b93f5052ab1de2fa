"""A pair's speed as a Markdown section."""

from __future__ import annotations

from collections.abc import Callable

from eval.speed_types import BatchSpeed, PairSpeed, SpeedReport, Spread


def speed_markdown(pair: PairSpeed) -> str:
    """Conditions, both models at each batch size, and the three speed-ups told apart."""
    student, teacher = pair.student, pair.teacher
    lines = [
        f"Measured on {student.device}, {student.dtype}, {student.threads} CPU thread(s), images of "
        f"{student.min_pixels} to {student.max_pixels} pixels, greedy, up to {student.max_new_tokens} tokens, warm-up "
        f"dropped, median of {student.repeats} repeats [quartiles].",
        "",
        "| | student | teacher |",
        "|---|---|---|",
        *_rows(student, teacher),
        "",
    ]
    for ours in student.batches:
        theirs = teacher.batch(ours.batch_size)
        lines += [
            f"Batch size {ours.batch_size}, {ours.problems} problems:",
            "",
            "| | student | teacher | teacher / student |",
            "|---|---|---|---|",
            *_batch_rows(ours, theirs),
            "",
        ]
    return "\n".join([*lines, *_speed_up_lines(pair)]) + "\n"


def _rows(student: SpeedReport, teacher: SpeedReport) -> list[str]:
    lengths = f"{student.flops.output_tokens:.1f} and {teacher.flops.output_tokens:.1f}"
    cells: list[tuple[str, Callable[[SpeedReport], str]]] = [
        ("model", lambda report: f"`{report.model}`"),
        ("parameters", lambda report: f"{report.parameters:,}"),
        ("weights", lambda report: f"{report.parameter_bytes / 2**20:,.1f} MiB"),
        (f"FLOPs per problem ({lengths} output tokens)", lambda report: f"{report.flops.per_problem:.3g}"),
        ("of these prefill and vision", lambda report: f"{report.flops.prefill:.3g}"),
        ("2 × parameters × tokens, for comparison", lambda report: f"{report.flops.estimate:.3g}"),
        ("prompt tokens, mean", lambda report: f"{report.mean_prompt_tokens:.1f}"),
        ("decoding images and tokenising", lambda report: f"{_time(report.preprocess_seconds_per_problem)} a problem"),
        ("problems that could not be shown", lambda report: str(report.failed)),
    ]
    return [f"| {name} | {show(student)} | {show(teacher)} |" for name, show in cells]


def _batch_rows(ours: BatchSpeed, theirs: BatchSpeed) -> list[str]:
    rows = []
    for name, field in (
        ("time to first token, a batch (vision and prefill)", "time_to_first_token"),
        ("time per output token, a batch", "time_per_output_token"),
        (f"{ours.fixed_tokens} tokens a problem, wall", "fixed_seconds_per_problem"),
        (f"{ours.fixed_tokens} tokens a problem, CPU", "fixed_cpu_seconds_per_problem"),
        ("a problem as answered, wall", "seconds_per_problem"),
        ("a problem as answered, CPU", "cpu_seconds_per_problem"),
    ):
        a, b = getattr(ours, field), getattr(theirs, field)
        ratio = f"{b.median / a.median:.2f}x" if a.median > 0 else "-"
        rows.append(f"| {name} | {_spread(a)} | {_spread(b)} | {ratio} |")
    cells: list[tuple[str, Callable[[BatchSpeed], str]]] = [
        ("output tokens per second", lambda batch: f"{batch.tokens_per_second.median:,.1f}"),
        ("output tokens a problem, mean", lambda batch: f"{batch.mean_output_tokens:.1f}"),
        ("right answers per second", lambda batch: _or_dash(batch.correct_per_second, ".3g")),
        ("peak memory", lambda batch: _memory(batch.peak_memory_bytes)),
    ]
    return rows + [f"| {name} | {show(ours)} | {show(theirs)} | |" for name, show in cells]


def _speed_up_lines(pair: PairSpeed) -> list[str]:
    ups, matched = pair.speed_ups, pair.matched
    lines = ["Speed-up of the student (teacher's time over student's; in brackets by CPU time):", ""]
    for size in ups.fixed_length:
        lines.append(
            f"- batch size {size}: {ups.fixed_length[size]:.2f}x ({ups.fixed_length_cpu[size]:.2f}x) at fixed output "
            f"length, {ups.per_problem[size]:.2f}x ({ups.per_problem_cpu[size]:.2f}x) per problem as the models answer"
        )
    if matched is None:
        lines.append("- at matched accuracy: not measured")
    elif matched.speed_up is None:
        lines.append(f"- at matched accuracy: none; {matched.outcome} ({matched.problems} problems)")
    else:
        lines.append(
            f"- at matched accuracy: {matched.speed_up:.2f}x ({matched.cpu_speed_up:.2f}x); {matched.outcome} "
            f"({matched.problems} problems, batch size {matched.batch_size})"
        )
    return [
        *lines,
        f"- parameters {ups.parameters:.2f}x, FLOPs per problem {ups.flops:.2f}x",
        "",
        f"Peak memory: {pair.student.memory_note}.",
    ]


def _spread(spread: Spread) -> str:
    return f"{_time(spread.median)} [{_time(spread.low)}, {_time(spread.high)}]"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


def _memory(size: int | None) -> str:
    return "not measured" if size is None else f"{size / 2**20:,.0f} MiB"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
