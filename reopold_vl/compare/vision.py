"""`python -m reopold_vl.compare.vision RUN_OR_STUDY_DIR`: does the student use the picture more after training?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reopold_vl.cli_errors import fail, nearest, parse_directory
from reopold_vl.config.base import ConfigError, require

if TYPE_CHECKING:
    from reopold_vl.compare.vision_bench import Bench
    from reopold_vl.config import TrainConfig
    from reopold_vl.models import VisionLanguageModel

PROGRAM = "python -m reopold_vl.compare.vision"
USAGE = """Does the student use the picture more after training? For a finished run, or for the runs of a comparison:

  python -m reopold_vl.compare.vision runs/embedded
  python -m reopold_vl.compare.vision comparisons/headline --arms reverse_kl reopold --num 1000

Greedy accuracy on the run's test problems of the student before and after and of the teacher, with the right picture,
without it, with that of the next problem of the same type, and with it pixelated; and the visual advantage of each
token of a model's own answers, VA_t = log pi(y_t | image) - log pi(y_t | pixelated image), under itself and under the
teacher. Writes vision.json, vision.md and vision.png. What has been measured is kept in DIR/vision: the same command
goes on after an interruption."""
ROLES = ("before", "after", "teacher")


@dataclass(frozen=True)
class VisionConfig:
    """What is measured, and where it goes."""

    num: int = 2200
    """At most this many of each run's test problems."""

    threshold: float = 1.0
    """Nats of visual advantage above which a token is counted: 1 is a factor of 2.7 in its probability."""

    arms: tuple[str, ...] = ()
    """Of a comparison: these arms alone."""

    seeds: tuple[int, ...] = ()
    """Of a comparison: these seeds alone."""

    output: Path | None = None
    """The JSON file to write, with a .md and a .png beside it; None is vision.json in the directory."""

    def __post_init__(self) -> None:
        require(self.num >= 1, "num", self.num, "1 or more")
        json_file = self.output is None or self.output.suffix == ".json"
        require(json_file, "output", self.output, "a file whose name ends in .json")


@dataclass(frozen=True)
class FinishedRun:
    """A run that left its student behind; one that stands alone is an arm of its own."""

    arm: str
    seed: int
    directory: Path
    config: TrainConfig


def parse(argv: Sequence[str]) -> tuple[Path, VisionConfig]:
    """(directory, options) from the arguments; raises ConfigError, or SystemExit for --help."""
    what = "which run's or comparison's directory?"
    place = {"program": PROGRAM, "place": "RUN_OR_STUDY_DIR", "what": what}
    return parse_directory(VisionConfig(), argv, **place, usage=USAGE, error=ConfigError)


def find_runs(
    directory: Path, arms: Sequence[str] = (), seeds: Sequence[int] = ()
) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs of a run's or a comparison's directory, and the names of those that are not finished.

    Raises ConfigError where there is neither, and for arms and seeds that are not there.
    """
    from reopold_vl.config_file import read_config

    if (directory / "config.yaml").is_file():
        if arms or seeds:
            raise ConfigError(f"arms and seeds are for comparisons: {directory} is one run")
        config = read_config(directory / "config.yaml")
        places = [(config.name, directory, config)]
    else:
        found = sorted((directory / "runs").glob("*/config.yaml"))
        found = [path for path in found if path.parent.suffix != ".part"]  # being copied from another comparison
        if not found:
            raise ConfigError(f"{directory} holds neither a run (config.yaml) nor a comparison (runs/NAME/config.yaml)")
        configs = [(path.parent, read_config(path)) for path in found]
        places = [(config.name.removesuffix(f"-seed{config.seed}"), place, config) for place, config in configs]
    known = _in_order([arm for arm, _, _ in places], directory)
    for name in arms:
        if name not in known:
            raise ConfigError(f"arms is {name!r}{nearest(name, known) or ': it has ' + ', '.join(known)}")
    for seed in seeds:
        there = sorted({config.seed for _, _, config in places})
        require(seed in there, "seeds", seed, ", ".join(map(str, there)))
    wanted = [
        FinishedRun(arm, config.seed, place, config)
        for arm, place, config in places
        if (not arms or arm in arms) and (not seeds or config.seed in seeds)
    ]
    wanted.sort(key=lambda run: (known.index(run.arm), run.seed))
    unfinished = [run.directory.name for run in wanted if not _finished(run.directory)]
    runs = [run for run in wanted if _finished(run.directory)]
    if not runs:
        raise ConfigError(f"{directory}: no run is finished ({', '.join(unfinished[:3])})")
    return runs, unfinished


def _finished(directory: Path) -> bool:
    return (directory / "summary.json").is_file() and (directory / "student").is_dir()


def _in_order(arms: Sequence[str], directory: Path) -> list[str]:
    """The arms as the comparison's report lists them, once it is written; by name before."""
    report = directory / "comparison.json"
    listed = list(json.loads(report.read_text(encoding="utf-8"))["arms"]) if report.is_file() else []
    return list(dict.fromkeys([*(name for name in listed if name in arms), *sorted(arms)]))


def measure_runs(runs: Sequence[FinishedRun], directory: Path, options: VisionConfig) -> list[dict[str, Any]]:
    """Each run's measurements by role; what depends on pair and data alone is measured once and shared."""
    from tqdm import tqdm

    from reopold_vl.compare.vision_bench import keys_of

    kept = directory / "vision"
    kept.mkdir(parents=True, exist_ok=True)
    keys = [keys_of(run.config, run.directory, options.num, options.threshold) for run in runs]
    missing = {key[role] for key in keys for role in ROLES if not (kept / f"{key[role]}.json").is_file()}
    # Runs of one pair and data side by side: its problems are drawn and its teacher is loaded once.
    order = sorted(range(len(runs)), key=lambda index: keys[index]["pair"])
    bench: Bench | None = None
    pair = ""
    with tqdm(total=len(missing), desc="models", unit="model", dynamic_ncols=True, disable=not missing) as bar:
        for index in order:
            run, key = runs[index], keys[index]
            todo = [role for role in ROLES if not (kept / f"{key[role]}.json").is_file()]
            if not todo:
                continue
            if bench is None or pair != key["pair"]:
                bench, pair = _bench(run, options), key["pair"]
                for note in bench.problems.notes:
                    tqdm.write(note)
            for role, found in _measured(bench, run, todo):
                _keep(kept / f"{key[role]}.json", {"role": role, "run": run.directory.name, **found})
                bar.update()
    return [{role: _read(kept / f"{key[role]}.json", key[role]) for role in ROLES} for key in keys]


def _bench(run: FinishedRun, options: VisionConfig) -> Bench:
    from reopold_vl.compare.vision_bench import Bench

    return Bench(run.config, options.num, options.threshold)


def _measured(bench: Bench, run: FinishedRun, roles: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure the run's models one after the other; the student before is loaded for itself and for the teacher."""
    from tqdm import tqdm

    def one(role: str, measured: Callable[..., dict[str, Any]], model: VisionLanguageModel) -> dict[str, Any]:
        title = f"{run.directory.name}, {'teacher' if role == 'teacher' else f'student {role}'}"
        total = bench.problems.num_answers
        with tqdm(total=total, desc=title, unit="answer", leave=False, dynamic_ncols=True) as bar:
            return measured(model, bar.update)

    if "after" in roles:
        yield "after", one("after", bench.measure_student, bench.student(str(run.directory / "student")))
    if {"before", "teacher"} & {*roles}:
        student = bench.student()
        if "before" in roles:
            yield "before", one("before", bench.measure_student, student)
        if "teacher" in roles:
            yield "teacher", one("teacher", bench.measure_teacher, student)


def _keep(path: Path, found: dict[str, Any]) -> None:
    from reopold_vl.runlog import replace_text

    replace_text(path, json.dumps(found, indent=1))


def _read(path: Path, key: str) -> dict[str, Any]:
    return {"key": key, **json.loads(path.read_text(encoding="utf-8"))}


def study(directory: Path, options: VisionConfig) -> dict[str, Any]:
    """Measure what is missing and write the report; returns the content of vision.json."""
    from reopold_vl.compare.vision_report import draw, to_markdown
    from reopold_vl.compare.vision_summary import summarise
    from reopold_vl.runlog import replace_text

    runs, unfinished = find_runs(directory, options.arms, options.seeds)
    if unfinished:
        shown = ", ".join(unfinished[:3]) + (", ..." if len(unfinished) > 3 else "")
        print(f"{len(unfinished)} not finished and left out: {shown}")
    measured = measure_runs(runs, directory, options)
    labels = [{"arm": run.arm, "seed": run.seed, "directory": run.directory.name} for run in runs]
    result = summarise(
        [{**label, **found} for label, found in zip(labels, measured, strict=True)],
        title=directory.resolve().name,
        threshold=options.threshold,
        unfinished=unfinished,
    )
    output = options.output or directory / "vision.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_text(output, json.dumps(result, indent=1))
    text = to_markdown(result)
    replace_text(output.with_suffix(".md"), text)
    draw(result, output.with_suffix(".png"))
    print(text)
    return result


def main(argv: list[str] | None = None) -> int:
    """Measure and report; the exit status."""
    try:
        directory, options = parse(sys.argv[1:] if argv is None else argv)
        study(directory, options)
    except (ValueError, OSError) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is missing", file=sys.stderr)
        return 130
    output = options.output or directory / "vision.json"
    print(f"{output}, {output.with_suffix('.md').name} and {output.with_suffix('.png').name} are written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
