"""`python -m reopold_vl.check`: green or red on one screen, with what to do about each red line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reopold_vl.cli import parse
from reopold_vl.cli_errors import fail
from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.launch import launched_rank
from reopold_vl.presets import PRESETS

USAGE = """Check a run before a GPU-hour is spent on it: wiring, memory and time.

  python -m reopold_vl.check [PRESET] [STUDENT TEACHER] [flags of training]
  python -m reopold_vl.check qwen2.5-vl-3b --student.path A --teacher.path B --data.path rows.jsonl
  python -m reopold_vl.check A B --data rows.jsonl

  --data ROWS             short for --data.path
  --compare-teacher PATH  a local copy of the model that a teacher server serves: log-probs must agree
  --json FILE             write the results for machines as well
  --quick                 leave out sampled answers and the timed step
  all others              as in  python -m reopold_vl.train --help

Exit status: 0 green, 1 red, 2 bad input."""
OLD_FLAGS = {"--data": "--data.path", "--max-pixels": "--images.max-pixels", "--teacher-device": "--teacher.device"}


def read(argv: Sequence[str]) -> tuple[TrainConfig, dict[str, str]]:
    """(configuration, options of the check itself) from the arguments. Raises ConfigError."""
    words = [item for word in argv for item in _renamed(word)]
    options: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, _, value = word.partition("=")
        if name == "--quick":
            options[name] = "yes"
        elif name in ("--json", "--compare-teacher"):
            options[name] = value or next(waiting, "")
            if not options[name]:
                raise ConfigError(f"{name} needs a value")
        else:
            rest.append(word)
    config, resume = parse(_with_paths(rest))
    if resume:
        raise ConfigError("--resume is for training: check a run's settings with --config RUN/config.yaml")
    return config, options


def _renamed(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    return [OLD_FLAGS.get(name, name) + equals + value]


def _with_paths(words: list[str]) -> list[str]:
    """A preset's name stays in front; STUDENT TEACHER become flags."""
    count = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    names, flags = words[:count], words[count:]
    preset = names[:1] if names and names[0] in PRESETS and len(names) != 2 else []
    paths = names[len(preset) :]
    if not paths or len(names) == 1:
        return [*names, *flags]
    if len(paths) != 2:
        raise ConfigError(f"{len(paths)} paths are given ({', '.join(paths)}): allowed are two, STUDENT TEACHER")
    return [*preset, "--student.path", paths[0], "--teacher.path", paths[1], *flags]


def main(argv: Sequence[str] | None = None) -> int:
    """Check and show; the exit status (0 green, 1 red, 2 bad input)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if launched_rank() > 0:
        return 0  # under torchrun the first process looks, for a run of as many
    if {"--help", "-h"} & {*argv}:
        print(USAGE)
        return 0
    try:
        config, options = read(argv)
        # torch and transformers take seconds to import: after the arguments have proved good.
        from reopold_vl.check.command import check_run
        from reopold_vl.check.screen import show

        compare = options.get("--compare-teacher")
        report = check_run(config, compare_teacher=compare, quick="--quick" in options)
    except ValueError as error:
        return fail(str(error))
    show(report)
    if "--json" in options:
        try:
            Path(options["--json"]).write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")
        except OSError as error:
            return fail(f"--json {options['--json']}: {error}")
    return 0 if report.green else 1


if __name__ == "__main__":
    raise SystemExit(main())
