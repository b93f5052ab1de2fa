"""`python -m data_recipes.inspect DIR`: what is in a directory of training rows, and what looks wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_recipes.types import RecipeError
from reopold_vl.cli_errors import fail, parse_flags

PROGRAM = "python -m data_recipes.inspect"

USAGE = """Look at training rows before spending GPU-hours on them.

  python -m data_recipes.inspect DIR_OR_FILE [--processor MODEL] [--output-dir DIR]

Reads whatever reopold_vl.train reads (a directory of data_recipes.build, or any parquet, jsonl or json file), decodes
every image, and prints counts, answer types, image sizes, prompt lengths and problems. Writes report.json,
examples.png and, with a processor, tokens.png."""


@dataclass(frozen=True)
class InspectConfig:
    """The settings of an inspection."""

    processor: str | None = None
    """Model directory or Hub id (zoo:student) under which prompts are counted in tokens, images included."""

    min_pixels: int = 4 * 28 * 28
    """Pixel budget of an image while tokens are counted: the smallest area."""

    max_pixels: int = 1280 * 28 * 28
    """The largest area."""

    output_dir: Path | None = None
    """Where the report goes; by default a folder `inspection` in the directory (or beside the file)."""

    seed: int = 0
    """Seed of the example rows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and inspect; the exit status (0 nothing wrong, 1 problems found, 2 bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        path = arguments.pop(0) if arguments and not arguments[0].startswith("-") else ""
        config = parse_flags(InspectConfig(), arguments, program=PROGRAM, usage=USAGE, error=RecipeError)
        if not path:
            raise RecipeError("name the directory or file to inspect")
        report = inspect(Path(path), config)
    except ValueError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"{error.filename or path}: {error.strerror}")
    print(as_text(path, report))
    return 1 if report["problems"] else 0


def inspect(path: Path, config: InspectConfig) -> dict[str, Any]:
    """Survey `path`, write the report and its pictures, and return the report."""
    from data_recipes.contact_sheet import draw_rows
    from data_recipes.journal import write_json
    from data_recipes.survey import as_json, survey
    from reopold_vl.rows import find_files

    find_files(path)  # before a processor is loaded
    count_tokens = None
    if config.processor is not None:
        from data_recipes.tokens import token_counter

        count_tokens = token_counter(config.processor, min_pixels=config.min_pixels, max_pixels=config.max_pixels)
    found = survey(path, count_tokens=count_tokens, seed=config.seed)
    report = as_json(found)
    out = config.output_dir or (path if path.is_dir() else path.parent) / "inspection"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "report.json", report)
    rows = [
        {
            "images": sample.images,
            "question": sample.question,
            "answer": sample.answer,
            "choices": sample.choices,
            "source": sample.source,
            "id": sample.id,
            "answer_type": "",
        }
        for sample in found.examples
    ]
    draw_rows(rows, out / "examples.png", path.name)
    if found.tokens:
        draw_histogram(found.tokens, out / "tokens.png", f"{path.name}: prompt tokens under {config.processor}")
    return {**report, "written_to": str(out)}


def draw_histogram(values: Sequence[int], path: Path, title: str) -> None:
    """A histogram of prompt lengths as PNG, median and 95th percentile marked."""
    from matplotlib.figure import Figure

    from data_recipes.survey import quantiles

    marks = quantiles(values)
    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    width = max(1, -(-(max(values) - min(values)) // 60))  # whole tokens: bars of one meaning
    edges = [edge - 0.5 for edge in range(min(values), max(values) + width + 1, width)]
    axes.hist(values, bins=edges, color="#0072B2")
    for name, style in (("median", "-"), ("p95", "--")):
        axes.axvline(marks[name], color="#D55E00", linestyle=style, label=f"{name} {marks[name]:,.0f}")
    axes.set(xlabel="tokens of the prompt, image tokens included", ylabel="rows")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def as_text(path: str, report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"{path}: {report['rows']:,} rows, {report['images']:,} images"]
    for title, name in (("answer types", "answer_types"), ("sources", "sources")):
        counts = report[name]
        shown = ", ".join(f"{kind} {count:,}" for kind, count in list(counts.items())[:12])
        lines.append(f"  {title}: {shown}" + (f", {len(counts) - 12} more" if len(counts) > 12 else ""))
    for title, name in (
        ("image width", "width"),
        ("image height", "height"),
        ("question, characters", "question_characters"),
        ("prompt, tokens", "prompt_tokens"),
    ):
        if report[name]:
            lines.append(f"  {title}: " + ", ".join(f"{key} {value:,.0f}" for key, value in report[name].items()))
    for kind, problem in report["problems"].items():
        lines.append(f"  PROBLEM, {problem['rows']:,} x {kind}: {'; '.join(problem['examples'])}")
    lines += [] if report["problems"] else ["  no problems found"]
    return "\n".join([*lines, f"report.json and pictures are in {report['written_to']}"])


if __name__ == "__main__":
    raise SystemExit(main())
