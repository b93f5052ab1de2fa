"""What a run writes down at every step: metrics.jsonl and TensorBoard always, wandb or trackio when asked.

Files of one JSON object per step ("step files") are cut back together on resume, so that the log of a resumed
run reads like the log of a run that was never stopped.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

METRICS_FILE = "metrics.jsonl"
REWARD_HISTOGRAM_FILE = "reward_histogram.jsonl"
TENSORBOARD_DIR = "tensorboard"
TRACKERS = ("wandb", "trackio")

_WANDB_ID_FILE = "wandb_id.txt"


def replace_text(path: Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` so that a reader finds the old file or the new one, never a half of either."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def append_step_line(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one step's record as one line of JSON; raises `ValueError` for NaN or infinity, which JSON lacks."""
    line = json.dumps(record, allow_nan=False)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")


def read_step_file(path: Path) -> list[dict[str, Any]]:
    """The records of a step file, in file order; empty when there is no such file.

    A last line that a killed run left half-written is skipped. Raises `ValueError`, naming file and line, when any
    other line is not a JSON object with a whole-number `step`.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    # What follows the last newline is empty in a whole file, and a write that was cut off otherwise.
    last = len(lines) - 1
    records = []
    for number, line in enumerate(lines):
        record = _parse_step_line(line)
        if record is not None:
            records.append(record)
        elif number < last:
            raise ValueError(f"{path}, line {number + 1}: not a JSON object with a step; remove that line to go on")
    return records


def _parse_step_line(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # covers bad JSON and bad UTF-8
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def truncate_step_file(path: Path, resume_step: int) -> None:
    """Keeps the records with `step < resume_step` and drops a half-written last line; atomic; no file, no work."""
    if not path.exists():
        return
    kept = (record for record in read_step_file(path) if record["step"] < resume_step)
    replace_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The records of a metrics.jsonl (or of the run directory that holds one): `step` and numbers by `area/name`.

    Values that were NaN or infinite when logged, null in the file, come back as NaN. Raises `ValueError` for a
    broken line that is not the last.
    """
    path = Path(path)
    records = read_step_file(path / METRICS_FILE if path.is_dir() else path)
    return [{name: math.nan if value is None else value for name, value in record.items()} for record in records]


class RunLog:
    """Writes one record of metrics per step to `<run>/metrics.jsonl`, TensorBoard and the trackers asked for.

    `resume_step` is the first step that will be logged: earlier records stay, later ones and a half-written line
    go, in metrics.jsonl, TensorBoard and the `step_files`, which others write into the run directory. 0 starts over;
    None means a new run. wandb itself never takes a step back: it keeps what it was first told of a step that a
    resumed run repeats.

    Raises `ValueError` for an unknown or missing tracker, and when a new run would write into an old run's log.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        trackers: Sequence[str] = (),
        resume_step: int | None = None,
        step_files: Sequence[str] = (REWARD_HISTOGRAM_FILE,),
        project: str = "reopold-vl",
        name: str | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        check_trackers(trackers)
        path = self.run_dir / METRICS_FILE
        if resume_step is None and path.exists():
            raise ValueError(f"{path} exists already: resume that run, or choose another output directory")
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if resume_step is not None:
            for step_file in (METRICS_FILE, *step_files):
                truncate_step_file(self.run_dir / step_file, resume_step)
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._tensorboard = _open_tensorboard(self.run_dir / TENSORBOARD_DIR, resume_step)
        self._trackers = [
            _start_tracker(tracker, self.run_dir, resume_step, project=project, name=name or self.run_dir.name)
            for tracker in trackers
        ]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of one step, to disk before it returns; numbers or one-element tensors.

        Raises `ValueError` for a metric called "step", and after `close`.
        """
        if "step" in metrics:
            raise ValueError('a metric cannot be called "step": that names the line')
        values = {name: float(value) for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": int(step), **finite}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, global_step=step)
        self._tensorboard.flush()
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def close(self) -> None:
        """Ends the log; a second call does nothing."""
        if self._file.closed:
            return
        self._file.close()
        self._tensorboard.close()
        for tracker in self._trackers:
            tracker.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NoLog:
    """The log of a process that is not the first: nothing is written."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def check_trackers(trackers: Sequence[str]) -> None:
    """Raises `ValueError` for a tracker that is unknown or not installed."""
    for tracker in trackers:
        if tracker not in TRACKERS:
            raise ValueError(f"unknown tracker {tracker!r}; known: {', '.join(TRACKERS)}")
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"tracker {tracker!r} is not installed: pip install {tracker}, or leave it out")


def _open_tensorboard(directory: Path, resume_step: int | None) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    if resume_step == 0:  # starting over
        shutil.rmtree(directory, ignore_errors=True)
    return SummaryWriter(str(directory), purge_step=resume_step)


def _start_tracker(tracker: str, run_dir: Path, resume_step: int | None, *, project: str, name: str) -> Any:
    """The tracker's module with a run started in it: wandb and trackio both offer `log(dict, step=)` and `finish()`."""
    module = importlib.import_module(tracker)
    going_on = resume_step is not None and resume_step > 0
    if tracker == "wandb":
        # wandb finds a run again by its id, not by its name: the id is kept beside the log.
        id_file = run_dir / _WANDB_ID_FILE
        if not (going_on and id_file.exists()):
            replace_text(id_file, secrets.token_hex(4))
        module.init(project=project, name=name, id=id_file.read_text(), resume="allow", dir=str(run_dir))
    else:
        module.init(project=project, name=name, resume="allow" if going_on else "never")
    return module


# Name of the metric, what the line calls it, how it is written.
_LIVE = (
    ("reward/mean", "R", "{:.3f}"),
    ("reopold/clipped", "clipped", "{:.0%}"),
    ("mask/kept", "kept", "{:.0%}"),
    ("student/entropy", "H", "{:.2f}"),
    ("rollout/length", "len", "{:.1f}"),
    ("validation/accuracy", "acc", "{:.1%}"),
)


def live_line(metrics: Mapping[str, float]) -> str:
    """The short line beside the progress bar, such as `R -0.412 clipped 7% kept 93% H 0.31 len 34.2 acc 71.0%`.

    R and H (entropy) in nats per token, clipped and kept as shares of the response tokens, length in tokens, acc
    on held-out problems. Metrics that are absent are left out.
    """
    return " ".join(f"{label} {form.format(metrics[name])}" for name, label, form in _LIVE if name in metrics)
