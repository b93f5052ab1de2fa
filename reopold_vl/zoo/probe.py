"""Measure the embedded pair on the test split, greedy: `python -m reopold_vl.zoo.probe [--json FILE]`.

Beside each model's accuracy by question type: the best constant answer per type (the train split's most common one),
the same model without the image, and with another problem's image of the same type. The benchmark must need eyes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from reopold_vl.zoo.decode import accuracy_by_type, greedy_answers
from reopold_vl.zoo.task import DEFAULT_NUM, TYPES, Problem, problem

HERE = Path(__file__).parent
PRIOR_SAMPLES = 500  # train problems per type for the most common answer


def constant_answers() -> dict[str, str]:
    """The train split's most common answer per question type."""
    common = {}
    for kind in TYPES:
        answers = Counter(problem("train", i, kind=kind).sample.answer for i in range(PRIOR_SAMPLES))
        common[kind] = str(answers.most_common(1)[0][0])
    return common


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {kind: round(score, 4) for kind, score in scores.items()}


def measure(directory: Path, items: Sequence[Problem]) -> dict:
    """Accuracy by type with the right image, without image, and with the image of the next problem of that type."""
    model = AutoModelForImageTextToText.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    questions = [item.sample.question for item in items]
    images = [item.sample.images[0] for item in items]
    swapped = images[len(TYPES) :] + images[: len(TYPES)]  # types take turns, so the next of a type is 11 further on
    start = time.perf_counter()
    seen = greedy_answers(model, tokenizer, questions, images)
    seconds = time.perf_counter() - start
    blind = greedy_answers(model, tokenizer, questions, None)
    wrong = greedy_answers(model, tokenizer, questions, swapped)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_greedy": round(seconds, 1),
        "response_tokens": round(sum(len(tokenizer(text).input_ids) + 1 for text in seen) / len(seen), 1),
        "accuracy": rounded(accuracy_by_type(items, seen)),
        "image_removed": rounded(accuracy_by_type(items, blind)),
        "image_swapped": rounded(accuracy_by_type(items, wrong)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=HERE, help="holds teacher/ and student/")
    parser.add_argument("--num", type=int, default=DEFAULT_NUM["test"], help="test problems")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--names", nargs="*", default=["teacher", "student"], help="directories under --dir")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    items = [problem("test", index) for index in range(options.num)]
    common = constant_answers()
    constant = [f"Answer: {common[item.sample.source]}" for item in items]
    report: dict = {"problems": len(items), "constant": rounded(accuracy_by_type(items, constant))}
    for name in options.names:
        report[name] = measure(options.dir / name, items)
        print(name, json.dumps(report[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report, options.names))


def table(report: dict, names: Sequence[str]) -> str:
    """The model card's table, in Markdown."""
    lines = [f"| type | best constant | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for kind in [*TYPES, "all"]:
        cells = [f"{report[name]['accuracy'][kind]:.3f}" for name in names]
        lines.append(f"| {kind} | {report['constant'][kind]:.3f} | {' | '.join(cells)} |")
    for row in ("image_removed", "image_swapped"):
        cells = [f"{report[name][row]['all']:.3f}" for name in names]
        lines.append(f"| all, {row.replace('_', ' ')} | | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
