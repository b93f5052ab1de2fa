"""How many benchmark items the contamination filter finds, and how often it is wrong.

`python -m benchmarks.contamination mathvision=PATH wemath=PATH ...`. Items of every benchmark named (NAME=PATH, as in
`data_recipes.build --benchmarks`; the embedded one always) are planted as training rows in another dress and looked
up. False alarms: training pictures of the embedded task against its benchmark (same templates, no picture shared by
construction), and every benchmark's rows against the others.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from data_recipes.benchmark_index import build_index
from data_recipes.check import check_row
from data_recipes.contamination import ContaminationIndex
from data_recipes.types import Checked
from reopold_vl.images import load_image
from reopold_vl.types import VisualSample

if TYPE_CHECKING:
    from eval.types import Problem

OTHER = "What does the picture show, and where was it taken?"


def copy_of(image: Any, *, quality: int = 75, scale: float = 1) -> bytes:
    """The picture as JPEG, resized."""
    picture, buffer = load_image(image), io.BytesIO()
    size = [max(1, round(side * scale)) for side in picture.size]
    picture.resize((size[0], size[1])).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def respaced(question: str) -> str:
    """The same words with other spaces."""
    return "  " + "   ".join(question.replace(",", " ,").split()) + " "


def copies(images: Sequence[Any], **dress: Any) -> tuple[bytes, ...]:
    return tuple(copy_of(image, **dress) for image in images)


DRESSES: dict[str, Callable[[Problem], tuple[str, tuple[Any, ...]]]] = {
    "half, JPEG 75, re-spaced": lambda one: (respaced(one.question), copies(one.images, scale=0.5)),
    "half, JPEG 50, re-spaced": lambda one: (respaced(one.question), copies(one.images, scale=0.5, quality=50)),
    "image, JPEG 75": lambda one: (OTHER, copies(one.images)),
    "image, half, JPEG 75": lambda one: (OTHER, copies(one.images, scale=0.5)),
    "question": lambda one: (one.question, ()),
}


def checked(question: str, images: Sequence[Any]) -> Checked:
    """A training row with this question and these images, as a build sees it."""
    asked = question.replace("<image>", "").strip() or OTHER  # some benchmarks write the question into the picture
    sample = VisualSample("planted", asked, "1", tuple(images))
    row = check_row(lambda cells: cells["sample"], 0, {"sample": sample})
    assert isinstance(row, Checked), row
    return row


def problems_of(name: str, path: str | None, limit: int) -> list[Problem]:
    """A benchmark's first problems that have an image."""
    from eval.benches import BENCHES
    from eval.load import load_problems

    loaded = load_problems(BENCHES[name], data_path=path).problems
    return list(islice((one for one in loaded if one.images), limit))


def recall(index: ContaminationIndex, name: str, problems: Sequence[Problem]) -> dict[str, Any]:
    """Share of the problems that are found in each dress."""
    found = dict.fromkeys(DRESSES, 0)
    for one in problems:
        for dress, make in DRESSES.items():
            found[dress] += any((hit.bench, hit.id) == (name, one.id) for hit in index.hits(checked(*make(one))))
    return {"bench": name, "items": len(problems), **{dress: found[dress] / len(problems) for dress in DRESSES}}


def false_alarms(index: ContaminationIndex, rows: dict[str, list[Problem]], training: int) -> dict[str, Any]:
    """Hits of training pictures of the embedded task, and of each benchmark's rows among the other benchmarks."""
    from reopold_vl.zoo.task import problem

    alarms = {
        "embedded training pictures": training,
        "hits": 0,
        "rows of benchmarks": 0,
        "hits in other benchmarks": [],
    }
    for number in range(training):
        sample = problem("train", number).sample
        alarms["hits"] += bool(index.hits(checked(sample.question, sample.images)))
    for name, problems in rows.items():
        for one in problems:
            alarms["rows of benchmarks"] += 1
            others = [hit for hit in index.hits(checked(one.question, one.images)) if hit.bench != name]
            alarms["hits in other benchmarks"] += [f"{name} {one.id}: {hit}" for hit in others]
    return alarms


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contamination", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="NAME=PATH", help="benchmarks with local data")
    parser.add_argument("--limit", type=int, default=400, help="items planted of each benchmark (400)")
    parser.add_argument("--training", type=int, default=20_000, help="training pictures of the embedded task (20,000)")
    arguments = parser.parse_args(argv)
    paths: dict[str, str | None] = {"embedded": None}
    paths |= {name: path for name, _, path in (entry.partition("=") for entry in arguments.benchmarks)}
    index = build_index([name if path is None else f"{name}={path}" for name, path in paths.items()])
    rows = {name: problems_of(name, path, arguments.limit) for name, path in paths.items()}
    table = [recall(index, name, problems) for name, problems in rows.items()]
    for one in table:
        print(f"{one['bench']:>14} {one['items']:4}", *(f"{dress}: {one[dress]:4.0%}" for dress in DRESSES), sep="  ")
    alarms = false_alarms(index, {name: some for name, some in rows.items() if name != "embedded"}, arguments.training)
    print(json.dumps({"recall": table, "false alarms": alarms}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
