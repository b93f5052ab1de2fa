"""Which local files hold the rows of a split: single files, folders in the Hub's layout, folders of images."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from data_recipes.types import RecipeError

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
# What libraries and this package write beside the rows.
NOT_ROWS = ("manifest.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def find_data(path: Path, split: str | None = None, default: str = "train", known: Sequence[str] = ()) -> list[Path]:
    """The files behind `path` that hold `split` (None: `default`): the file itself, or files of a directory.

    A directory is searched for files of SUFFIXES in itself, then in `data/`, then in folders called like the split.
    A file belongs to the split whose name its own contains as a word (train-00000-of-00002, problems_test1k, val);
    where no file names a split, all are taken; of several kinds side by side, the parquet files. `known` are split
    names beside the usual ones.

    Raises RecipeError for a missing path (naming what is near), another kind of file, a directory without rows,
    without this split, or with several kinds of files and no parquet among them.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise RecipeError(f"{path}: files of this kind are not read; allowed: {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = ", ".join(difflib.get_close_matches(path.name, [entry.name for entry in beside]))
        raise RecipeError(f"{path}: no such file or directory" + (f"; near it: {near}" if near else ""))
    wanted = split or default
    for folder in (path, path / "data"):
        if found := rows_in(folder):
            return _one_kind(path, _of_split(path, found, wanted, split is not None and split != default, known))
    for word in _words(wanted):
        if found := rows_in(path / word):
            return _one_kind(path, found)
    raise RecipeError(_nothing(path, wanted))


def rows_in(folder: Path) -> list[Path]:
    """The files of rows in a folder, of any kind; none where it does not exist."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(file for file in files if file.name not in NOT_ROWS and not file.name.startswith((".", "_")))


def _words(split: str) -> tuple[str, ...]:
    return next((words for words in SPLIT_WORDS.values() if split in words), (split,))


def _of_split(path: Path, files: list[Path], wanted: str, asked: bool, known: Sequence[str]) -> list[Path]:
    def names(file: Path, words: Sequence[str]) -> bool:
        return any(re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", file.stem.lower()) for word in words)

    if chosen := [file for file in files if names(file, _words(wanted))]:
        return chosen
    every = [word for words in SPLIT_WORDS.values() for word in words] + list(known)
    if asked or any(names(file, every) for file in files):
        listed = ", ".join(file.name for file in files[:6])
        raise RecipeError(f"{path}: no file is called after the split {wanted}; found: {listed}; name one")
    return files


def _one_kind(path: Path, files: list[Path]) -> list[Path]:
    if parquet := [file for file in files if file.suffix.lower() == ".parquet"]:
        return parquet  # rows with their images inside; jsonl or csv beside them is a listing of the same
    if len({file.suffix.lower() for file in files}) > 1:
        raise RecipeError(f"{path}: holds files of several kinds ({', '.join(f.name for f in files[:4])}); name one")
    return files


def _nothing(path: Path, split: str) -> str:
    inside = sorted(entry.name for entry in path.iterdir())
    if any(name.endswith(".arrow") or name == "dataset_dict.json" for name in inside):
        return f"{path}: was written by save_to_disk, which is not read; write it with to_parquet or push it to the Hub"
    if any(Path(name).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") for name in inside):
        return f"{path}: images without metadata.jsonl or metadata.csv (columns file_name, question, answer)"
    listed = ", ".join(inside[:6]) or "nothing"
    return f"{path}: holds no rows ({', '.join(SUFFIXES)}) itself, in data/ or in {split}/; found: {listed}"
