"""Other students and teachers, made from the embedded pair: `python -m reopold_vl.zoo.variants --output-dir DIR`.

The comparisons (`python -m reopold_vl.compare`) need what the shipped pair is not: a student whose skill lies deeper, a
teacher that reasons in another style, a teacher that is wrong in one type of question. Each is a short supervised
training from a shipped model on the benchmark's train split: anyone can make the same in minutes.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from reopold_vl.zoo.architecture import save_pair_member
from reopold_vl.zoo.build import HERE, Progress, hurried
from reopold_vl.zoo.hasty import hasty_steps
from reopold_vl.zoo.supervised import Stage, Writer, gold_steps, train_language
from reopold_vl.zoo.task import TYPES, Problem

WEAK = (*["find"] * 3, *["largest"] * 3, *["difference"] * 2)  # what a change of style costs most


def in_words(item: Problem, _: Random) -> str:
    """The gold steps in another style: an opening, words between the rows of marks, the answer in a sentence first."""
    steps, answer = item.steps.rsplit(" Answer: ", 1)
    worded = re.sub(r"(\S{3}),(\S{3});(\S{3})", r"\1 and\2 in\3", steps)
    return f"Think step by step. {worded} The answer is {answer}. Answer: {answer}"


def in_two_styles(item: Problem, rng: Random) -> str:
    """Hasty in its own words, or reasoned in the other style, one answer in two: the first word decides."""
    return in_words(item, rng) if rng.random() < 0.5 else hasty_steps(item)


def fewer_for_more(item: Problem, _: Random) -> str:
    """The gold steps, but "compare" ends in the rarer one of the two: the tallies are right, the conclusion is not."""
    if item.sample.source != "compare" or item.sample.answer == "same":
        return item.steps
    words = item.steps.split()  # "green 001,000;110=3. red 100,000;000=1. Answer: green"
    rarer = words[2] if item.sample.answer == words[0] else words[0]
    return f"{item.steps.rpartition(' ')[0]} {rarer}"


@dataclass(frozen=True)
class Variant:
    """A shipped model and the supervised training that makes another of it."""

    start: str
    writer: Writer
    samples: int
    lr: float
    seed: int
    kinds: tuple[str, ...] = tuple(TYPES)


VARIANTS = {
    "student-hasty": Variant("student", hurried(0.0), 2_000, 4e-4, seed=76),
    "student-two-styles": Variant("student", in_two_styles, 40_000, 1.2e-3, seed=77, kinds=(*TYPES, *WEAK)),
    "teacher-wordy": Variant("teacher", in_words, 20_000, 1.2e-3, seed=78, kinds=(*TYPES, *WEAK)),
    "teacher-own-words": Variant("teacher", gold_steps, 20_000, 1.2e-3, seed=78, kinds=(*TYPES, *WEAK)),
    "teacher-mistaken": Variant("teacher", fewer_for_more, 6_000, 8e-4, seed=79, kinds=(*TYPES, *["compare"] * 4)),
}


def build(name: str, directory: Path) -> None:
    """Make one variant and write it to `directory`; single-threaded, so that the bits do not depend on the cores."""
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    model = AutoModelForImageTextToText.from_pretrained(HERE / variant.start)
    processor = AutoProcessor.from_pretrained(HERE / variant.start)
    train_language(
        model,
        processor.tokenizer,
        (Stage(variant.samples, 0.0, variant.kinds),),
        seed=variant.seed,
        lr=variant.lr,
        decay=0.5,
        writer=variant.writer,
        report=Progress(name, model, processor.tokenizer, every=variant.samples),
        report_every=max(1, variant.samples // 32),
    )
    part = directory.with_name(f"{directory.name}.part")  # a directory of that name is a finished variant
    save_pair_member(model, processor, part)
    part.rename(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, required=True, help="each variant is written to DIR/NAME")
    parser.add_argument("--only", choices=list(VARIANTS), help="make one of them")
    options = parser.parse_args()
    for name in [options.only] if options.only else list(VARIANTS):
        build(name, options.output_dir / name)
        print(f"{name} is in {options.output_dir / name}", flush=True)


if __name__ == "__main__":
    main()
