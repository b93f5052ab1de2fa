"""`python -m reopold_vl.compare`: the command."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from reopold_vl.cli_errors import fail, nearest, parse_flags
from reopold_vl.compare.study import Arm, Study
from reopold_vl.config import ConfigError
from reopold_vl.config.base import require

USAGE = """Objectives side by side on one configuration: same prompts, rollouts and evaluation points, several seeds.

  python -m reopold_vl.compare --preset quick
  python -m reopold_vl.compare --config run.yaml --arms reverse_kl grpo reopold --seeds 8 --jobs 2

Runs are processes of their own below OUTPUT_DIR/NAME/runs; finished ones are kept, so the same command goes on after an
interruption. Writes comparison.json, report.md and plots."""


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and how much of the machine it may use."""

    preset: str | None = None
    """A named study of the embedded pair: quick (two minutes), headline, latent, ablation, rivals, mismatch (four
    studies: mismatch-style, mismatch-error, mismatch-control, mismatch-two-styles), regimes (two studies:
    regimes-steps, regimes-unclipped), tuning."""

    config: Path | None = None
    """A run's config.yaml to compare objectives on, in place of a preset: any pair and data."""

    arms: tuple[str, ...] = ()
    """With --config the objectives to compare, at their default settings; with --preset a selection of its arms."""

    seeds: int | None = None
    """Seeds an arm; None takes the preset's (4 with --config)."""

    jobs: int = 1
    """Runs at the same time; each takes the threads that its configuration says."""

    reference: str | None = None
    """The arm whose rollouts are divided by the others'."""

    output_dir: Path = Path("comparisons")
    """Studies are written below this directory."""

    name: str | None = None
    """The study's directory; None takes the preset's name."""

    report_only: bool = False
    """Write tables and plots again from the runs that are there; fails if one is missing."""

    def __post_init__(self) -> None:
        require(self.jobs >= 1, "jobs", self.jobs, "1 or more")
        require(self.seeds is None or self.seeds >= 1, "seeds", self.seeds, "1 or more")


def chosen_studies(options: CompareConfig) -> list[Study]:
    """One study, or those of a preset that stands for several."""
    from reopold_vl.compare.studies import GROUPS

    if options.preset not in GROUPS:
        return [choose(options)]
    if options.name is not None:
        raise ConfigError(f"name is {options.name!r}: allowed is none with {options.preset}, which is several studies")
    return [choose(replace(options, preset=name)) for name in GROUPS[options.preset]]


def choose(options: CompareConfig) -> Study:
    """The study that the options ask for; raises ConfigError naming what does not exist."""
    from reopold_vl.compare.studies import GROUPS, STUDIES
    from reopold_vl.config_file import read_config
    from reopold_vl.objectives import OBJECTIVES

    if (options.preset is None) == (options.config is None):
        raise ConfigError("exactly one of --preset and --config must be given: " + ", ".join(STUDIES))
    if options.preset is not None:
        if options.preset not in STUDIES:
            raise ConfigError(f"unknown preset {options.preset!r}{nearest(options.preset, (*STUDIES, *GROUPS))}")
        study = STUDIES[options.preset]
        for name in options.arms:
            known = [arm.name for arm in study.arms]
            if name not in known:
                raise ConfigError(f"arms is {name!r}: allowed are {', '.join(known)}")
        chosen = tuple(arm for arm in study.arms if not options.arms or arm.name in options.arms)
        reference = study.reference if study.reference in [arm.name for arm in chosen] else None
        study = replace(study, arms=chosen, reference=reference)
    else:
        assert options.config is not None
        if not options.arms:
            raise ConfigError("arms is empty: name the objectives to compare, such as --arms reverse_kl reopold")
        for name in options.arms:
            if name not in OBJECTIVES:
                raise ConfigError(f"arms is {name!r}{nearest(name, OBJECTIVES)}")
        base = read_config(options.config)
        study = Study("comparison", f"Comparison on {options.config}", base, tuple(map(_arm, options.arms)), seeds=4)
    if options.reference is not None:
        study = replace(study, reference=options.reference)
    return replace(study, seeds=options.seeds or study.seeds, name=options.name or study.name)


def _arm(name: str) -> Arm:
    return Arm(name, name)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then report; the exit status."""
    program = "python -m reopold_vl.compare"
    try:
        options = parse_flags(
            CompareConfig(), sys.argv[1:] if argv is None else argv, program=program, usage=USAGE, error=ConfigError
        )
        for study in chosen_studies(options):
            directory = options.output_dir / study.name
            compare(study, directory, jobs=options.jobs, report_only=options.report_only)
            print(f"comparison.json, report.md and plots are in {directory}")
    except ValueError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("stopped: the same command goes on with what is missing", file=sys.stderr)
        return 130
    return 0


def compare(study: Study, directory: Path, *, jobs: int, report_only: bool = False) -> dict:
    """Finish the study's runs and write its report; returns the content of comparison.json."""
    from reopold_vl.compare.plots import draw
    from reopold_vl.compare.report import to_markdown
    from reopold_vl.compare.runner import missing_runs, run_study
    from reopold_vl.compare.summary import summarise
    from reopold_vl.runlog import replace_text

    if report_only:
        if missing := missing_runs(study, directory):
            raise ConfigError(f"report_only: {len(missing)} runs are not finished, the first is {missing[0]}")
    else:
        run_study(study, directory, jobs=jobs)
    result = summarise(study, directory)
    replace_text(directory / "comparison.json", json.dumps(result, indent=1))
    text = to_markdown(result)
    replace_text(directory / "report.md", text)
    draw(result, directory / "plots")
    print(text)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
