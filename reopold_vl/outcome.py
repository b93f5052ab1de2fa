"""What a run is measured by: graded answers before and after, plots, page, table and summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import transformers
from tqdm import tqdm

from reopold_vl import __version__, checkpoint, distributed, rundir
from reopold_vl.assemble import Parts
from reopold_vl.config import TrainConfig
from reopold_vl.grading import accuracy, grade, write_graded
from reopold_vl.report import finish
from reopold_vl.report.table import Graded
from reopold_vl.sharding import full_state, whole_weights
from reopold_vl.teachers import Answerer
from reopold_vl.types import VisualSample


def measure(config: TrainConfig, model: Answerer, samples: Sequence[VisualSample], title: str) -> list[Graded]:
    """Greedy, graded answers with a progress bar; the processes share the samples and all have all answers."""
    quiet, total = not distributed.is_first(), len(distributed.share_of(samples))
    with tqdm(total=total, desc=title, unit="problem", leave=False, dynamic_ncols=True, disable=quiet) as bar:
        return grade(
            model,
            samples,
            max_new_tokens=config.rollout.max_new_tokens,
            rows_at_once=config.rollout.rows_at_once,
            progress=bar.update,
        )


def measure_student(config: TrainConfig, parts: Parts, samples: Sequence[VisualSample], title: str) -> list[Graded]:
    """The same of the student, whose weights each process needs whole for it."""
    with whole_weights(parts.student.policy):
        return measure(config, parts.student, samples, title)


def measure_after(config: TrainConfig, parts: Parts) -> list[Graded]:
    """The trained student on the test problems; kept in the run."""
    graded = measure_student(config, parts, parts.splits.test, "student after, test problems")
    if distributed.is_first():
        write_graded(graded, config.run_dir / "test_after.jsonl")
    return graded


def measure_average(config: TrainConfig, parts: Parts) -> dict[str, list[Graded]]:
    """The moving average, if there is one, as a student of its own: saved, and its test answers kept in the run."""
    if parts.average is None:
        return {}
    with parts.average.in_place():
        save_student(config, parts, rundir.AVERAGE_DIR)
        graded = measure_student(config, parts, parts.splits.test, "moving average, test problems")
    if distributed.is_first():
        write_graded(graded, config.run_dir / rundir.AVERAGE_ANSWERS)
        print(f"moving average of the student: {accuracy(graded):.1%} of {len(graded):,} test problems")
    return {"ema": graded}


def save_student(config: TrainConfig, parts: Parts, name: str = rundir.STUDENT_DIR) -> None:
    """The trained student as a plain Hugging Face directory, written by the first process."""
    whole = full_state(parts.student.policy.model)
    if distributed.is_first():
        checkpoint.write_atomically(config.run_dir / name, partial(parts.student.save, state_dict=whole))
    distributed.barrier()


def measure_baselines(config: TrainConfig, parts: Parts) -> dict[str, list[Graded]]:
    """Student before and teacher on the test problems, teacher on the validation problems; kept in the run."""
    run, test, validation = config.run_dir, parts.splits.test, parts.splits.validation
    sharded = config.distributed.shard_teacher  # it would have to be whole in each process
    shown = ([], []) if sharded else (test, validation)
    student = partial(measure_student, config, parts)
    teacher = partial(measure, config, parts.teacher)
    wanted = {
        "before": ("test_before.jsonl", student, test, "student before, test problems"),
        "teacher": ("test_teacher.jsonl", teacher, shown[0], "teacher, test problems"),
        "teacher_validation": ("teacher_validation.jsonl", teacher, shown[1], "teacher, validation problems"),
    }
    return {
        name: rundir.graded_once(run / file, partial(measured, samples, title))
        for name, (file, measured, samples, title) in wanted.items()
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
        **({"ema_accuracy": accuracy(graded["ema"])} if graded.get("ema") else {}),
    )
