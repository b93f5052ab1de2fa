"""The contamination index of the benchmarks of `eval` whose data is at hand: built once, saved, used again."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_recipes.contamination import ContaminationIndex, Item, Picture
from data_recipes.hashes import THUMBNAIL_BYTES, perceptual_hash, pixel_hash, question_key, thumbnail
from data_recipes.types import RecipeError
from reopold_vl.answers import normalise

if TYPE_CHECKING:
    from eval.types import Problem

FORMAT = 1

TRAINING_SPLITS = ("train",)
"""Splits that some benchmarks can be scored on too, but that are there to be trained on."""

METADATA = ("dataset_infos.json", "dataset_info.json", "config.json")
DATA_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".zip", ".tar", ".gz")


def get_index(names: Sequence[str], saved: Path | None) -> ContaminationIndex:
    """The index in the file `saved`; without one, of the benchmarks that `names` ask for, written there if a file is
    named. Raises RecipeError for an unknown benchmark, one whose data cannot be had, or a file that is no index."""
    if saved is not None and saved.is_file():
        return load_index(saved)
    index = build_index(names)
    if saved is not None:
        save_index(index, saved)
    return index


def build_index(names: Sequence[str]) -> ContaminationIndex:
    """Read benchmarks (NAME, NAME=PATH, auto; see `Filters.benchmarks`) and hash what they hold.

    A problem that several splits hold (or one file without a split's name, asked for every split) goes in once.
    """
    items, pictures, benches = list[Item](), list[Picture](), dict[str, dict]()
    for name, path, needed in _wanted(names):
        known: set[tuple[str, str, str]] = set()
        for split, loaded in _load(name, path, needed):
            broken = 0
            for problem in loaded.problems:
                identity = (problem.id, problem.question, problem.answer or "")
                if identity not in known:
                    known.add(identity)
                    broken += _add(name, problem, items, pictures)
            entry = {"problems": len(loaded.problems), "unreadable_rows": len(loaded.failed), "origin": loaded.origin}
            benches[f"{name}/{split}"] = {**entry, "unreadable_images": broken, "revision": loaded.revision}
    return ContaminationIndex(items, pictures, benches)


def _wanted(names: Sequence[str]) -> Iterator[tuple[str, Path | None, bool]]:
    """(benchmark, local data, whether it must be found) in the order of asking."""
    from eval.benches import BENCHES

    asked = [part for name in names for part in name.split(",") if part]
    for part in asked:
        name, _, path = part.partition("=")
        if name == "auto":
            named = {other.partition("=")[0] for other in asked}
            yield from ((known, None, False) for known in sorted(BENCHES) if known not in named and _at_hand(known))
        elif name not in BENCHES:
            raise RecipeError(f"benchmarks names {name!r}: known are auto, {', '.join(sorted(BENCHES))}")
        elif path and not Path(path).exists():
            raise RecipeError(f"benchmarks: {name}={path}: no such file or directory")
        else:
            yield name, Path(path) if path else None, True


def missing_benchmarks(index: ContaminationIndex) -> list[str]:
    """Benchmarks of `eval` that the index knows nothing of."""
    from eval.benches import BENCHES

    known = {name.partition("/")[0] for name in index.benches}
    return sorted(name for name, bench in BENCHES.items() if name not in known and (bench.sources or bench.rows))


def _at_hand(name: str) -> bool:
    """Whether a benchmark is computed, or its rows lie in the Hub's cache on this machine.

    A folder in the cache is not enough: looking at a data set, as a recipe of the same id does, leaves its card there,
    and taking that for the data would download all of it.
    """
    from eval.benches import BENCHES

    bench = BENCHES[name]
    if bench.rows is not None:
        return True
    import datasets.config
    import huggingface_hub.constants as hub
    from datasets.naming import camelcase_to_snakecase

    folders = [
        place
        for source in bench.sources
        for owner, _, own in [source.id.partition("/")]
        for place in (
            Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(own)}",
            Path(hub.HF_HUB_CACHE) / f"datasets--{owner}--{own}",
        )
    ]
    return any(
        path.suffix in DATA_SUFFIXES and path.name not in METADATA for folder in folders for path in folder.rglob("*")
    )


def _load(name: str, path: Path | None, needed: bool) -> Iterable[tuple[str, Any]]:
    """(split, problems) of every split that can be had, but for those to train on; at least one, where it is needed.

    With its training split in the index, a benchmark such as Geometry3K would take out every row of the recipe of the
    same name.
    """
    from eval.benches import BENCHES
    from eval.benchmark import BenchmarkError
    from eval.load import load_problems

    bench, found, reason = BENCHES[name], 0, ""
    held_out = tuple(split for split in bench.splits if split not in TRAINING_SPLITS)
    for split in (None,) if path is not None and path.is_file() else held_out or (None,):
        try:
            loaded = load_problems(bench, split=split, data_path=path)
        except BenchmarkError as error:
            reason = reason or str(error)
            continue
        found += 1
        yield loaded.split, loaded
    if not found and needed:
        raise RecipeError(f"benchmarks: {reason}")


def _add(bench: str, problem: Problem, items: list[Item], pictures: list[Picture]) -> int:
    """Append one problem; how many of its images could not be decoded."""
    from reopold_vl.images import ImageError, load_image

    items.append(Item(bench, problem.id, question_key(problem.question), normalise(problem.answer or "")))
    broken = 0
    for source in problem.images:
        try:
            image = load_image(source)
        except ImageError:
            broken += 1
            continue
        pictures.append(Picture(len(items) - 1, pixel_hash(image), perceptual_hash(image), thumbnail(image)))
    return broken


def save_index(index: ContaminationIndex, path: Path) -> None:
    """Write an index as .npz (no pickle); the file appears whole or not at all."""
    pictures = index.pictures
    text = {
        "format": FORMAT,
        "benches": index.benches,
        "items": [[i.bench, i.id, i.question_key, i.answer] for i in index.items],
    }
    arrays = {
        "text": np.frombuffer(json.dumps(text).encode(), np.uint8),
        "item": np.array([p.item for p in pictures], np.int64),
        "sha256": np.frombuffer(b"".join(bytes.fromhex(p.sha256) for p in pictures), np.uint8).reshape(-1, 32),
        "phash": np.array([p.phash for p in pictures], np.uint64),
        "thumbnail": np.frombuffer(b"".join(p.thumbnail for p in pictures), np.uint8).reshape(-1, THUMBNAIL_BYTES),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def load_index(path: Path) -> ContaminationIndex:
    """Read what `save_index` wrote; raises RecipeError for anything else."""
    import zipfile

    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            text = json.loads(arrays["text"].tobytes())
            if text["format"] != FORMAT:
                raise RecipeError(f"{path}: index format {text['format']}, this version reads {FORMAT}: build it again")
            items = [Item(*fields) for fields in text["items"]]
            columns = (arrays["item"], arrays["sha256"], arrays["phash"], arrays["thumbnail"])
            pictures = [
                Picture(int(item), sha.tobytes().hex(), int(code), small.tobytes())
                for item, sha, code, small in zip(*columns, strict=True)
            ]
    except (OSError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RecipeError(f"{path}: no contamination index ({error}): remove it, or name another file") from error
    except ValueError as error:
        raise RecipeError(f"{path}: no contamination index ({error})") from error
    return ContaminationIndex(items, pictures, text["benches"])


def digest(index: ContaminationIndex) -> str:
    """A hash of all that an index compares with: the same for the same problems and images."""
    total = hashlib.sha256(json.dumps([[i.bench, i.id, i.question_key, i.answer] for i in index.items]).encode())
    for picture in index.pictures:
        total.update(f"{picture.item}/{picture.sha256}/".encode())
    return total.hexdigest()
