"""Speed and memory, each figure beside its peer in one run: a table, and JSON with one entry a figure.

    python -m benchmarks.run all --json figures.json --plot docs/figures/growth.png --page docs/performance.md
    python -m benchmarks.run rollout
    python -m benchmarks.run rollout --add figures.json --json figures.json --page docs/performance.md

One thread, fp32, the CPU; the same weights, images and seeds for both sides. Time is CPU time, which other work on the
machine changes little; of several names each is measured in a process of its own. The peers are transformers and, with
`pip install -e ".[peers]"`, TRL; where TRL is missing its column says so. What each number is a saving of is in
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.figures import growth, head, padding, passes, real_sizes, rollout, savings, step, waits
from benchmarks.figures.profile import profile_text
from benchmarks.figures.result import Figure, restored, savings_table, table
from reopold_vl.compare.summary import commit

FIGURES: dict[str, Callable[[], list[Figure]]] = {
    "passes": passes.measure,
    "step": step.measure,
    "rollout": rollout.measure,
    "head": head.measure,
    "padding": padding.measure,
    "growth": growth.measure,
    "waits": waits.measure,
    "savings": savings.measure,
}

BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"  # around what is written into the page


def versions() -> dict[str, str]:
    """Of what the numbers depend on: our code's commit as well."""
    found = {"commit": commit() or "none"}
    for name in ("torch", "transformers", "trl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def beside_peers(found: dict[str, list[Figure]]) -> list[Figure]:
    """All but the savings, which are compared with ourselves and have no goal."""
    return [figure for name, each in found.items() if name != "savings" for figure in each]


def blocks(found: dict[str, list[Figure]]) -> dict[str, str]:
    """What the page shows of the figures that were measured, by the name of the place where it stands."""
    made = {}
    if len(found) == len(FIGURES):  # some figures alone would be a part of the table
        made["figures"] = table(beside_peers(found))
    if "savings" in found:
        made["savings"] = savings_table(found["savings"])
    if "rollout" in found:
        made["profile"] = profile_text(found["rollout"][-1])
    if "step" in found:
        made["arithmetic"] = step.arithmetic_text(found["step"])
        made["sizes"] = real_sizes.text()
    if "growth" in found:
        made["longer"] = growth.longer_text(found["growth"])
    return made


def measured(path: Path) -> dict[str, list[Figure]]:
    """What an earlier run wrote with --json. Raises ValueError where that was with other versions."""
    records = json.loads(path.read_text(encoding="utf-8"))
    if records["versions"] != versions():
        raise ValueError(f"--add is {path}, measured with {records['versions']}: allowed is {versions()}")
    found: dict[str, list[Figure]] = {}
    for record in records["figures"]:
        found.setdefault(record["group"], []).append(restored(record))
    return found


def apart(name: str) -> list[Figure]:
    """Measured in a process of its own: what TRL's trainers leave in one slows rollouts by a tenth.

    Raises RuntimeError where that process ends without figures; what it said stands before.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks.run", name, "--json", str(file)]
        status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if not file.exists():
            raise RuntimeError(f"{name} was not measured: its process ended with {status}")
        return measured(file)[name]


def write_page(path: Path, made: dict[str, str]) -> None:
    """Put each text between the page's two marks of its name. Raises ValueError where there are none."""
    page = path.read_text(encoding="utf-8")
    for name, text in made.items():
        marks = BEGIN.format(name), END.format(name)
        before, begin, rest = page.partition(marks[0])
        _, end, after = rest.partition(marks[1])
        if not begin or not end:
            raise ValueError(f"--page is {path}: allowed is a page with the lines {marks[0]} and {marks[1]}")
        page = f"{before}{begin}\n{text}{end}{after}"
    path.write_text(page, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a goal is missed or a result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Speed and memory beside peers.")
    parser.add_argument(
        "names", nargs="?", default="", help=f"all, or some of {', '.join(FIGURES)}, with commas between"
    )
    parser.add_argument("--add", type=Path, default=None, help="an earlier --json: what is not measured now is from it")
    parser.add_argument("--json", type=Path, default=None, help="file for the results")
    parser.add_argument("--plot", type=Path, default=None, help="PNG for the figure growth")
    parser.add_argument(
        "--page", type=Path, default=None, help="page whose tables, of what was measured, are written anew"
    )
    options = parser.parse_args(argv)
    names = list(FIGURES) if options.names == "all" else list(filter(None, options.names.split(",")))
    if unknown := set(names) - set(FIGURES):
        parser.error(f"{', '.join(sorted(unknown))}: allowed is all, or some of {', '.join(FIGURES)}")
    if not names and options.add is None:
        parser.error(f"names is empty: allowed is all, or some of {', '.join(FIGURES)}")
    found = {} if options.add is None else measured(options.add)
    torch.set_num_threads(1)
    if len(names) == 1:
        found[names[0]] = FIGURES[names[0]]()
    else:
        for number, name in enumerate(names, start=1):
            print(f"{number}/{len(names)} {name}", file=sys.stderr, flush=True)
            found[name] = apart(name)
    found = {name: found[name] for name in FIGURES if name in found}
    figures = beside_peers(found)
    print(table(figures))
    print(*(text for name, text in blocks(found).items() if name != "figures"), sep="\n")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        records = {
            "versions": versions(),
            "figures": [one.record() | {"group": name} for name in found for one in found[name]],
        }
        options.json.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    if options.page is not None:
        write_page(options.page, blocks(found))
    if options.plot is not None and "growth" in found:
        growth.plot(found["growth"], options.plot)
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
