"""The command line of `python -m reopold_vl.train`: presets, config files, flags by tyro, errors of one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reopold_vl.cli_errors import nearest, parse_flags
from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.config.base import require
from reopold_vl.config_file import read_config
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.presets import PRESETS, listing

USAGE = """Distil a teacher VLM into a student VLM with REOPOLD.

  python -m reopold_vl.train [PRESET] [--config FILE] [--objective NAME] [flags]
  python -m reopold_vl.train --resume runs/NAME

  PRESET      a name from the list below (default: embedded, which needs no download)
  --config    start from a config.yaml as every run writes it, in place of a preset
  --objective {objectives}
  --resume    go on with a run that was stopped; no other flag but --steps and --distributed.* is taken

The objective is to maximise  J = (1 / sum M) sum_t rho_t A_t M_t  over the student's own answers, with
  R_t = log pi_T(o_t|s_t) - log pi_S(o_t|s_t)   teacher/student log-ratio of each sampled token
  A_t = max(R_t, log(lambda) / (1 - lambda))    clipped from below (lambda = objective.mixture)
  M_t = 1[R_t >= floor], then 1[H_t >= tau]     exploration, then the top entropy share from switch_step on
(arXiv 2603.11137, Eq. 4, 7, 8-10).

Presets (docs/presets.md says what is the paper's in them):
{presets}"""


def parse(argv: list[str]) -> tuple[TrainConfig, bool]:
    """(configuration, whether it resumes a run) from the arguments; raises ConfigError or, for --help, SystemExit."""
    argv, resume = _take(argv, "--resume")
    if resume is not None:
        return _resumed(Path(resume), argv), True
    argv, path = _take(argv, "--config")
    argv, objective = _take(argv, "--objective")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else None
    if name is not None and path is not None:
        raise ConfigError(f"both a preset ({name}) and --config {path} are given: allowed is one of them")
    if name is not None and name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, PRESETS)}")
    config = read_config(Path(path)) if path is not None else PRESETS[name or "embedded"]
    if objective is not None:
        if objective not in OBJECTIVES:
            raise ConfigError(f"unknown objective {objective!r}{nearest(objective, OBJECTIVES)}")
        kind = OBJECTIVES[objective]
        config = config if type(config.objective) is kind else replace(config, objective=kind())
    return _flags(config, argv), False


def _resumed(run_dir: Path, argv: list[str]) -> TrainConfig:
    if not (run_dir / "config.yaml").is_file():
        raise ConfigError(f"--resume {run_dir}: no run lies there (config.yaml is missing)")
    argv, steps = _take(argv, "--steps")
    others = [item for item in argv if item.startswith("--") and not item.startswith("--distributed.")]
    if others or (argv and not argv[0].startswith("--")):
        kept = "a resumed run keeps its settings (but --steps and --distributed.*)"
        raise ConfigError(f"{(others or argv)[0]} cannot be combined with --resume: {kept}")
    # The directory may have been moved or named from elsewhere (also as `.`): where it lies now is what counts.
    place = run_dir if run_dir.name not in ("", "..") else run_dir.resolve()
    config = replace(read_config(run_dir / "config.yaml"), output_dir=place.parent, name=place.name)
    config = _flags(config, argv)  # the number of processes, and how they share the work, may be another
    if steps is None:
        return config
    require(steps.isdigit(), "steps", steps, "1 or more")
    return replace(config, steps=int(steps))


def _flags(config: TrainConfig, argv: list[str]) -> TrainConfig:
    usage = USAGE.format(presets=listing(), objectives=", ".join(OBJECTIVES))
    program, extras = "python -m reopold_vl.train", ["--config", "--resume", "--objective"]
    return parse_flags(config, argv, program=program, usage=usage, error=ConfigError, extras=extras)


def _take(argv: list[str], flag: str) -> tuple[list[str], str | None]:
    """Remove `flag VALUE` or `flag=VALUE` from the arguments."""
    for index, item in enumerate(argv):
        if item.startswith(flag + "="):
            return argv[:index] + argv[index + 1 :], item.split("=", 1)[1]
        if item == flag:
            if index + 1 == len(argv):
                raise ConfigError(f"{flag} needs a value")
            return argv[:index] + argv[index + 2 :], argv[index + 1]
    return list(argv), None
