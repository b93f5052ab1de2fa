"""Runs of a study as processes of their own: cached, resumable, several at a time, none hiding its failure."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from reopold_vl.compare.study import Arm, Study, with_variants
from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.config_file import read_config, to_dict, write_config

COPIED = "copied_from.txt"  # in a run that another study made
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

    build_variants(study, directory, jobs=jobs)
    runs = [run_config(study, arm, seed, directory) for seed in study.all_seeds for arm in study.arms]
    copy_finished([config for config in runs if not finished(config)], directory)
    todo = [config for config in runs if not finished(config)]
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
    config = with_variants(replace(study.run(arm, seed), output_dir=directory / "runs"), variants_dir(directory))
    path = config.run_dir / "config.yaml"
    if path.is_file() and settings(read_config(path)) != settings(config):
        raise ConfigError(f"{config.run_dir} holds a run with other settings: remove it or choose another directory")
    return config


def settings(config: TrainConfig) -> dict[str, Any]:
    """All that decides what a run finds: not its name and not where it lies."""
    return {**to_dict(config), "output_dir": "", "name": ""}


def finished(config: TrainConfig) -> bool:
    return (config.run_dir / "summary.json").is_file()


def copy_finished(configs: Sequence[TrainConfig], directory: Path) -> None:
    """Take over runs of the same settings that another study beside this one has finished."""
    if not configs:
        return
    found = [path.parent for path in sorted(directory.parent.glob("*/runs/*/summary.json"))]
    theirs = [(run, settings(read_config(run / "config.yaml"))) for run in found if run.parent.parent != directory]
    for config in configs:
        same = next((run for run, values in theirs if values == settings(config)), None)
        if same is not None:
            shutil.rmtree(config.run_dir, ignore_errors=True)
            # Under another name first: a copy that was interrupted is no finished run.
            part = config.run_dir.with_name(f"{config.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(same, part)
            write_config(config, part / "config.yaml")
            (part / COPIED).write_text(f"{same}\n", encoding="utf-8")
            part.rename(config.run_dir)


def build_variants(study: Study, directory: Path, *, jobs: int) -> None:
    """Make the models that a study needs and that are not shipped; raises StudyError where that fails."""
    place = variants_dir(directory)
    missing = [name for name in study.variants() if not (place / name).is_dir()]
    if missing:
        print(f"making {', '.join(missing)} in {place}: some minutes", flush=True)
    place.mkdir(parents=True, exist_ok=True)

    def build(name: str) -> int:
        command = [sys.executable, "-m", "reopold_vl.zoo.variants", "--output-dir", str(place), "--only", name]
        with (place / f"{name}.log").open("w", encoding="utf-8") as log:
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        failed = [name for name, status in zip(missing, pool.map(build, missing), strict=True) if status]
    if failed:
        raise StudyError(f"{failed[0]} could not be made: see {place / f'{failed[0]}.log'}")


def variants_dir(directory: Path) -> Path:
    """Beside the studies, which share them."""
    return directory.parent / "models"


def missing_runs(study: Study, directory: Path) -> list[str]:
    """Names of the runs that are not finished."""
    configs = [run_config(study, arm, seed, directory) for seed in study.all_seeds for arm in study.arms]
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
    status = in_its_own_process(run, log_of(config))
    if status == 0:
        shared.mkdir(parents=True, exist_ok=True)
        for name in BASELINES:
            if not (shared / name).is_file():
                shutil.copy(run / name, shared / name)
        # A study keeps its numbers; hundreds of megabytes of weights per run it need not.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return status


def in_its_own_process(run: Path, log: Path) -> int:
    """Train or resume the run that lies in `run`, its output added to `log`; the process's exit status.

    Processes are forked from one that has torch and transformers loaded, which takes longer than a step.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reopold_vl.loop"])
    process = context.Process(target=_resume, args=(run, log))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _resume(run: Path, log: Path) -> None:
    from reopold_vl.train import main

    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.exit(main(["--resume", str(run)]))


def _baseline_dir(config: TrainConfig, directory: Path) -> Path:
    """A name for what the baselines depend on: the pair, the data and how long answers may be."""
    import hashlib
    import json

    values = to_dict(config)
    relevant = {key: values[key] for key in ("student", "teacher", "data", "images")}
    relevant["max_new_tokens"] = config.rollout.max_new_tokens
    relevant["seed"] = config.seed if config.data.path else 0  # rows of a file are held out by the seed
    text = json.dumps(relevant, sort_keys=True, default=str)
    return directory.parent / "baselines" / hashlib.sha256(text.encode()).hexdigest()[:16]


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
