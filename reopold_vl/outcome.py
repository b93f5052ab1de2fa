"""What a run is measured by: graded answers before and after, plots, page, table and summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import transformers
from tqdm import tqdm

from reopold_vl import __version__, rundir
from reopold_vl.assemble import Parts
from reopold_vl.config import TrainConfig
from reopold_vl.grading import grade
from reopold_vl.models import VisionLanguageModel
from reopold_vl.report import finish
from reopold_vl.report.table import Graded
from reopold_vl.types import VisualSample


def measure(
    config: TrainConfig, model: VisionLanguageModel, samples: Sequence[VisualSample], title: str
) -> list[Graded]:
    """Greedy, graded answers with a progress bar."""
    with tqdm(total=len(samples), desc=title, unit="problem", leave=False, dynamic_ncols=True) as bar:
        return grade(
            model,
            samples,
            max_new_tokens=config.rollout.max_new_tokens,
            rows_at_once=config.rollout.rows_at_once,
            progress=bar.update,
        )


def measure_baselines(config: TrainConfig, parts: Parts) -> dict[str, list[Graded]]:
    """Student before and teacher on the test problems, teacher on the validation problems; kept in the run."""
    run, test, validation = config.run_dir, parts.splits.test, parts.splits.validation
    wanted = {
        "before": ("test_before.jsonl", parts.student, test, "student before, test problems"),
        "teacher": ("test_teacher.jsonl", parts.teacher, test, "teacher, test problems"),
        "teacher_validation": ("teacher_validation.jsonl", parts.teacher, validation, "teacher, validation problems"),
    }
    return {
        name: rundir.graded_once(run / file, partial(measure, config, model, samples, title))
        for name, (file, model, samples, title) in wanted.items()
    }


def report(config: TrainConfig, parts: Parts, graded: dict[str, list[Graded]]) -> dict[str, Any]:
    """Plots, page, table and summary.json."""
    run, progress = config.run_dir, parts.progress
    finish.draw_plots(run, graded["teacher_validation"])
    settings = {
        "student": config.student.path,
        "teacher": config.teacher.path,
        "objective": str(config.objective),
        "steps": config.steps,
        "seed": config.seed,
    }
    finish.draw_page(run, settings)
    if graded["after"]:
        finish.print_and_write_table(run, graded, seed=config.seed)
    else:
        print("no test problems: there is no table (see --data.test-rows and --data.test-path)")
    return finish.write_summary(
        run / rundir.SUMMARY_FILE,
        graded,
        rollouts=progress.rollouts,
        steps=progress.step,
        skipped={"prompts": progress.skipped_prompts, "updates": progress.skipped_updates},
        parameters={"student": parts.student.num_parameters, "teacher": parts.teacher.num_parameters},
        versions={"reopold_vl": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        seconds={"train": progress.train_seconds, "total": progress.seconds_so_far()},
        seed=config.seed,
    )
