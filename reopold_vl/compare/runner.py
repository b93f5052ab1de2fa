"""Runs of a study as processes of their own: cached, resumable, several at a time, none hiding its failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from reopold_vl.compare.study import Arm, Study
from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.config_file import read_config, to_dict, write_config

# What is measured before training starts depends on pair and data alone, so the runs of a study share it.
BASELINES = ("test_before.jsonl", "test_teacher.jsonl", "teacher_validation.jsonl")


class StudyError(ValueError):
    """Runs that failed; the message names them and where their output lies."""


def run_study(study: Study, directory: Path, *, jobs: int) -> None:
    """Finish every run of the study below `directory`/runs; what is finished already is kept.

    Raises ConfigError where a run with other settings lies in the way, StudyError when runs have failed (after all
    others are done).
    """
    from tqdm import tqdm

    wanted = [(arm, seed) for seed in range(study.seeds) for arm in study.arms]
    runs = {(arm.name, seed): run_config(study, arm, seed, directory) for arm, seed in wanted}
    todo = [config for config in runs.values() if not finished(config)]
    failed: list[str] = []
    with tqdm(total=len(runs), initial=len(runs) - len(todo), desc=study.name, unit="run", dynamic_ncols=True) as bar:
        # Baselines differ between arms that train another pair or on other data: one run of each goes first.
        first, rest = _split_by_baseline(todo, directory)
        for batch in (first, rest):
            with ThreadPoolExecutor(max_workers=jobs) as pool:
                started = {pool.submit(_train, config, directory): config for config in batch}
                for done in as_completed(started):
                    config = started[done]
                    if done.result():
                        failed.append(f"{config.name} ({log_of(config)})")
                    bar.update()
    if failed:
        raise StudyError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; the same command goes on")


def run_config(study: Study, arm: Arm, seed: int, directory: Path) -> TrainConfig:
    """One run's configuration, placed below the study's directory; raises ConfigError if another lies there."""
    config = replace(study.run(arm, seed), output_dir=directory / "runs")
    path = config.run_dir / "config.yaml"
    if path.is_file():
        there = {**to_dict(read_config(path)), "output_dir": ""}
        if there != {**to_dict(config), "output_dir": ""}:
            raise ConfigError(
                f"{config.run_dir} holds a run with other settings: remove it or choose another directory"
            )
    return config


def finished(config: TrainConfig) -> bool:
    return (config.run_dir / "summary.json").is_file()


def missing_runs(study: Study, directory: Path) -> list[str]:
    """Names of the runs that are not finished."""
    configs = [run_config(study, arm, seed, directory) for seed in range(study.seeds) for arm in study.arms]
    return [config.name for config in configs if not finished(config)]


def log_of(config: TrainConfig) -> Path:
    """Where a run's output goes."""
    return config.run_dir.parent / f"{config.name}.log"


def _train(config: TrainConfig, directory: Path) -> int:
    """Run or resume one training in its own process; its exit status."""
    run = config.run_dir
    run.mkdir(parents=True, exist_ok=True)
    # A run without a checkpoint "resumes" from its start, with the baselines that lie in its directory.
    write_config(config, run / "config.yaml")
    shared = _baseline_dir(config, directory)
    for name in BASELINES:
        if (shared / name).is_file() and not (run / name).is_file():
            shutil.copy(shared / name, run / name)
    command = [sys.executable, "-m", "reopold_vl.train", "--resume", str(run)]
    with log_of(config).open("a", encoding="utf-8") as log:
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(config)).returncode
    if status == 0:
        shared.mkdir(parents=True, exist_ok=True)
        for name in BASELINES:
            if not (shared / name).is_file():
                shutil.copy(run / name, shared / name)
        # A study keeps its numbers; hundreds of megabytes of weights per run it need not.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return status


def _environment(config: TrainConfig) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(config.threads)} if config.threads else {}
    return {**os.environ, **threads}


def _baseline_dir(config: TrainConfig, directory: Path) -> Path:
    """A name for what the baselines depend on: the pair, the data and how long answers may be."""
    import hashlib
    import json

    values = to_dict(config)
    relevant = {key: values[key] for key in ("student", "teacher", "data", "images")}
    relevant["max_new_tokens"] = config.rollout.max_new_tokens
    relevant["seed"] = config.seed if config.data.path else 0  # rows of a file are held out by the seed
    text = json.dumps(relevant, sort_keys=True, default=str)
    return directory / "baselines" / hashlib.sha256(text.encode()).hexdigest()[:16]


def _split_by_baseline(configs: Sequence[TrainConfig], directory: Path) -> tuple[list[TrainConfig], list[TrainConfig]]:
    """The first run of each pair and data whose baselines are not measured yet, and all others."""
    seen: set[Path] = set()
    first: list[TrainConfig] = []
    for config in configs:
        place = _baseline_dir(config, directory)
        if place not in seen and not place.is_dir():
            first.append(config)
        seen.add(place)
    return first, [config for config in configs if config not in first]
