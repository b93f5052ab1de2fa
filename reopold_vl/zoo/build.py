"""Build the embedded pair from scratch: `python -m reopold_vl.zoo.build [--output-dir DIR] [--scale 1.0] [--only ...]`.

Teacher and student are two independent trainings (own seeds, own sizes) on the benchmark's train split. The student
then gets its cold start: a short phase of mostly hasty answers, so that its skill is latent when on-policy distillation
begins. Every number drawn depends on the seeds only; single-threaded runs repeat bit by bit on the same machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from reopold_vl.zoo.architecture import (
    STUDENT,
    TEACHER,
    Size,
    build_model,
    build_processor,
    build_tokenizer,
    save_pair_member,
)
from reopold_vl.zoo.decode import accuracy_by_type, greedy_answers
from reopold_vl.zoo.hasty import hasty_steps
from reopold_vl.zoo.supervised import EASY, FIRST, Clock, Stage, train_language, train_seeing
from reopold_vl.zoo.task import TYPES, Problem, problem

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Course:
    """Stages under one learning-rate schedule, which falls over the last `decay` of its samples."""

    stages: tuple[Stage, ...]
    seed: int
    lr: float
    decay: float = 0.45


@dataclass(frozen=True)
class Recipe:
    """Everything that decides one model: size, seed of its weights, images for seeing, courses of language training."""

    size: Size
    seed: int
    seeing: int
    courses: tuple[Course, ...]


@dataclass(frozen=True)
class ColdStart:
    """The student's last phase: `samples` answers of which the share `full` are gold steps, the rest hasty."""

    samples: int = 5_000
    full: float = 0.28
    lr: float = 4e-4
    seed: int = 31


# What the courses before left weak (a name twice is drawn twice as often).
HARD = ("compare", "difference", "find", "look up", "largest", "largest")
HARDEST = (*["find"] * 4, "look up", *["largest"] * 6)
LAST = (*["difference"] * 4, *["find"] * 4, *["compare"] * 2, *["larger"] * 2, *["largest"] * 2)
STUDENT_HARD = (*["compare"] * 2, *["look up"] * 4, *["largest"] * 3)
TEACHER_RECIPE = Recipe(
    TEACHER,
    seed=23,
    seeing=16_000,
    courses=(
        Course(
            (Stage(4_000, 1.0), Stage(6_000, 0.25, FIRST), Stage(9_000, 0.2, EASY), Stage(50_000, 0.08)), 23, 1.7e-3
        ),
        Course((Stage(28_000, 0.04, (*TYPES, *HARD)),), 24, 1.5e-3, decay=0.7),
        Course((Stage(16_000, 0.04, (*TYPES, *HARDEST)),), 25, 1e-3, decay=0.7),
        Course((Stage(30_000, 0.04, (*TYPES, *HARD)),), 26, 1.2e-3, decay=0.8),
        Course((Stage(20_000, 0.04, (*TYPES, *LAST)),), 27, 1.2e-3, decay=0.8),
    ),
)
STUDENT_RECIPE = Recipe(
    STUDENT,
    seed=11,
    seeing=16_000,
    courses=(
        Course((Stage(5_000, 1.0), Stage(8_000, 0.25, FIRST), Stage(12_000, 0.2, EASY), Stage(75_000, 0.08)), 11, 2e-3),
        Course((Stage(36_000, 0.04, (*TYPES, *STUDENT_HARD)),), 12, 1.5e-3, decay=0.8),
    ),
)


RECIPES = {"teacher": TEACHER_RECIPE, "student": STUDENT_RECIPE}


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """The same recipe with fewer samples, for trying the builder out."""
    courses = []
    for course in recipe.courses:
        stages = (replace(stage, samples=max(8, round(stage.samples * scale))) for stage in course.stages)
        courses.append(replace(course, stages=tuple(stages)))
    return replace(recipe, seeing=max(64, round(recipe.seeing * scale)), courses=tuple(courses))


def hurried(full: float) -> Callable[[Problem, Random], str]:
    """The writer of the cold start: gold steps with probability `full`, else hasty ones."""

    def write(item: Problem, rng: Random) -> str:
        return item.steps if rng.random() < full else hasty_steps(item)

    return write


class Progress:
    """Prints loss, time and now and then the greedy accuracy on a few validation problems."""

    def __init__(self, name: str, model, tokenizer, every: int, num: int = 220) -> None:
        self.name, self.model, self.tokenizer, self.every = name, model, tokenizer, every
        self.clock = Clock()
        self.problems = [problem("validation", index) for index in range(num)]

    def __call__(self, samples: int, loss: float) -> None:
        line = f"{self.name}: {samples:,} samples, loss {loss:.3f}, {self.clock}"
        if samples % self.every == 0:
            line += f", validation {self.accuracy():.3f}"
        print(line, flush=True)

    def accuracy(self) -> float:
        self.model.eval()
        questions = [item.sample.question for item in self.problems]
        images = [item.sample.images[0] for item in self.problems]
        responses = greedy_answers(self.model, self.tokenizer, questions, images)
        self.model.train()
        return accuracy_by_type(self.problems, responses)["all"]


def train(name: str, recipe: Recipe, tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """One model from random weights to full answers."""
    model = build_model(recipe.size, tokenizer, recipe.seed)
    progress = Progress(name, model, tokenizer, every=16_000)
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    seen = train_seeing(model, images=recipe.seeing, seed=recipe.seed)
    print(f"{name}: tells {seen:.3f} of the cells apart, {progress.clock}", flush=True)
    for course in recipe.courses:
        train_language(
            model,
            tokenizer,
            course.stages,
            seed=course.seed,
            lr=course.lr,
            decay=course.decay,
            report=progress,
        )
    return model


def cold_start(model, tokenizer, phase: ColdStart) -> None:
    """Make the student hasty: its skill stays, its habit becomes the quick answer."""
    train_language(
        model,
        tokenizer,
        (Stage(phase.samples, 0.0),),
        seed=phase.seed,
        lr=phase.lr,
        decay=0.5,
        writer=hurried(phase.full),
        report=Progress("cold start", model, tokenizer, every=4_000),
        report_every=250,
    )


def build(name: str, scale: float, output_dir: Path, keep_full: bool) -> None:
    """Train one of the two and write its directory; single-threaded, so that the bits do not depend on the cores."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    model = train(name, scaled(RECIPES[name], scale), tokenizer)
    if name == "student":
        if keep_full:
            save_pair_member(model, processor, output_dir / "student_full")
        cold_start(model, tokenizer, ColdStart(max(8, round(ColdStart().samples * scale))))
    save_pair_member(model, processor, output_dir / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=HERE, help="where teacher/ and student/ go")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training samples; 1 builds the pair")
    parser.add_argument("--only", choices=list(RECIPES), help="build one of the two")
    parser.add_argument("--keep-full", action="store_true", help="also write the student before its hasty phase")
    options = parser.parse_args()
    start = time.monotonic()
    names = [options.only] if options.only else list(RECIPES)
    # Two independent trainings: a process for each, started afresh because torch's threads do not survive a fork.
    with ProcessPoolExecutor(len(names), mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(build, name, options.scale, options.output_dir, options.keep_full) for name in names]
        for job in jobs:
            job.result()
    print(f"built in {time.monotonic() - start:.0f} s wall", flush=True)


if __name__ == "__main__":
    main()
