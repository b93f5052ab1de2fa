"""The directory of a run: claimed once, and what is measured in it never measured twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from reopold_vl import distributed
from reopold_vl.grading import read_graded, write_graded
from reopold_vl.report.table import Graded

CONFIG_FILE, CHECKPOINTS_DIR, STUDENT_DIR, SUMMARY_FILE = "config.yaml", "checkpoints", "student", "summary.json"
AVERAGE_DIR, AVERAGE_ANSWERS = "student_ema", "test_ema.jsonl"


class RunDirError(ValueError):
    """A directory that a new run must not write into."""


def claim(directory: Path, *, overwrite: bool) -> None:
    """Create an empty run directory.

    Raises RunDirError if something lies there already, unless it is a run and `overwrite` asks for its removal.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        is_run = (directory / CONFIG_FILE).is_file()
        if not is_run:
            raise RunDirError(f"{directory} is not empty and holds no run: choose another --name or --output-dir")
        if not overwrite:
            raise RunDirError(
                f"{directory} already holds a run: go on with --resume {directory}, start over with --overwrite, "
                "or choose another --name"
            )
        shutil.rmtree(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(f"{directory} cannot be created: {error.strerror}") from None


def graded_once(path: Path, measure: Callable[[], list[Graded]]) -> list[Graded]:
    """The graded answers in `path`, measured and written first if they are not there yet (a resumed run has them).

    All processes measure, the first one writes and the answers are its own; the others get what they measured.
    """
    first = distributed.is_first()
    if distributed.largest(first and path.exists()):
        return read_graded(path) if first else []
    graded = measure()
    if not first:
        return graded
    write_graded(graded, path)
    return read_graded(path)
