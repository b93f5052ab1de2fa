"""Speed and memory, each figure beside its peer in one run: a table, and JSON with one entry a figure.

    python -m benchmarks.run all --json figures.json --plot docs/figures/growth.png --page docs/performance.md
    python -m benchmarks.run rollout

One thread, fp32, the CPU; the same weights, images and seeds for both sides. Time is this process's CPU time, which
other work on the machine changes little. The peers are transformers and, with `pip install -e ".[peers]"`, TRL; where
TRL is missing its column says so. What each number is a saving of is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.figures import growth, head, padding, passes, rollout, savings, step
from benchmarks.figures.result import Figure, table

FIGURES: dict[str, Callable[[], list[Figure]]] = {
    "passes": passes.measure,
    "step": step.measure,
    "rollout": rollout.measure,
    "head": head.measure,
    "padding": padding.measure,
    "growth": growth.measure,
    "savings": savings.measure,
}

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {}
    for name in ("torch", "transformers", "trl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_page(path: Path, figures: list[Figure]) -> None:
    """Put the table between the page's two marks. Raises ValueError where there are none."""
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"--page is {path}: allowed is a page with the lines {BEGIN} and {END}")
    path.write_text(f"{before}{begin}\n{table(figures)}{end}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a goal is missed or a result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Speed and memory beside peers.")
    parser.add_argument("names", help=f"all, or some of {', '.join(FIGURES)}, with commas between")
    parser.add_argument("--json", type=Path, default=None, help="file for the results")
    parser.add_argument("--plot", type=Path, default=None, help="PNG for the figure growth")
    parser.add_argument("--page", type=Path, default=None, help=f"page whose table, after {BEGIN}, is written anew")
    options = parser.parse_args(argv)
    names = list(FIGURES) if options.names == "all" else options.names.split(",")
    if unknown := set(names) - set(FIGURES):
        parser.error(f"{', '.join(sorted(unknown))}: allowed is all, or some of {', '.join(FIGURES)}")
    torch.set_num_threads(1)
    found: dict[str, list[Figure]] = {name: FIGURES[name]() for name in names}
    figures = [figure for each in found.values() for figure in each]
    print(table(figures), end="")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        records = {"versions": versions(), "figures": [figure.record() for figure in figures]}
        options.json.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    if options.page is not None:
        write_page(options.page, figures)
    if options.plot is not None and "growth" in found:
        growth.plot(found["growth"], options.plot)
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
