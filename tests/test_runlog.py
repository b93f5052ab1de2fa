"""The run log: what a step leaves on disk, and that a resumed log reads like one that was never stopped."""

import json
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from reopold_vl import runlog
from reopold_vl.runlog import RunLog, live_line, read_metrics, truncate_step_file


def _events(run_dir, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_writes_one_line_of_json_per_step_before_log_returns(tmp_path):
    with RunLog(tmp_path / "run") as log:
        log.log(0, {"reward/mean": -0.5, "loss": 1.25})
        # Read while the log is open: a kill -9 now would lose nothing.
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [{"step": 0, "reward/mean": -0.5, "loss": 1.25}]
        log.log(1, {"loss": 1.0})
    assert read_metrics(tmp_path / "run") == [{"step": 0, "reward/mean": -0.5, "loss": 1.25}, {"step": 1, "loss": 1.0}]
    assert _events(tmp_path / "run", "loss") == [(0, 1.25), (1, 1.0)]


def test_takes_one_element_tensors_and_numpy_numbers(tmp_path):
    import numpy as np
    import torch

    with RunLog(tmp_path) as log:
        metrics: Any = {"loss": torch.tensor(0.5), "optim/lr": np.float32(0.25)}
        log.log(3, metrics)
    assert read_metrics(tmp_path) == [{"step": 3, "loss": 0.5, "optim/lr": 0.25}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_json_lacks_are_null_in_the_file_and_nan_when_read(tmp_path, value):
    with RunLog(tmp_path) as log:
        log.log(0, {"loss": value})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0, "loss": null}\n'
    assert math.isnan(read_metrics(tmp_path)[0]["loss"])


def test_resume_cuts_every_step_file_and_tensorboard_back_to_the_step(tmp_path):
    with RunLog(tmp_path) as log:
        for step in range(5):
            log.log(step, {"loss": float(step)})
    histogram = tmp_path / "reward_histogram.jsonl"
    histogram.write_text("".join(f'{{"step": {step}, "edges": [0, 1], "counts": [1]}}\n' for step in range(5)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    with RunLog(tmp_path, resume_step=3) as log:
        for step in range(3, 6):
            log.log(step, {"loss": 10.0 + step})
    values = [(0, 0.0), (1, 1.0), (2, 2.0), (3, 13.0), (4, 14.0), (5, 15.0)]
    assert [(record["step"], record["loss"]) for record in read_metrics(tmp_path)] == values
    assert _events(tmp_path, "loss") == values
    assert [json.loads(line)["step"] for line in histogram.read_text().splitlines()] == [0, 1, 2]
    assert not list(tmp_path.glob(".*.tmp"))


def test_resume_at_zero_starts_over(tmp_path):
    with RunLog(tmp_path) as log:
        log.log(0, {"loss": 1.0})
    with RunLog(tmp_path, resume_step=0) as log:
        log.log(0, {"loss": 2.0})
    assert read_metrics(tmp_path) == [{"step": 0, "loss": 2.0}]
    assert _events(tmp_path, "loss") == [(0, 2.0)]


def test_a_new_run_never_writes_into_an_old_log(tmp_path):
    RunLog(tmp_path).close()
    with pytest.raises(ValueError, match="exists already"):
        RunLog(tmp_path)


def test_a_half_written_last_line_is_skipped_but_a_broken_middle_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": 1}\n{"step": 1, "loss')
    assert read_metrics(path) == [{"step": 0, "loss": 1}]
    path.write_bytes(b'{"step": 0, "loss": 1}\n{"step": 1, "caf\xc3')
    assert read_metrics(path) == [{"step": 0, "loss": 1}]
    path.write_text('{"step": 0}\n{"loss": 2}\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)
    assert read_metrics(tmp_path / "nothing.jsonl") == []


def test_a_last_line_without_newline_that_is_whole_stays_and_gets_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}')
    truncate_step_file(path, 9)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_a_failed_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n')

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runlog.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        truncate_step_file(path, 1)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_misuse_is_refused(tmp_path):
    with RunLog(tmp_path) as log, pytest.raises(ValueError, match="step"):
        log.log(0, {"step": 1.0})
    log.close()  # a second close is fine
    with pytest.raises(ValueError, match="closed"):
        log.log(1, {"loss": 1.0})


@pytest.mark.parametrize(
    ("tracker", "message"), [("wandb", "pip install wandb"), ("wandbb", "unknown tracker 'wandbb'")]
)
def test_a_tracker_that_is_not_there_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, tracker, message):
    monkeypatch.setattr(runlog.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message) as error:
        RunLog(tmp_path / "run", trackers=(tracker,))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def trackers(monkeypatch):
    """Stand-ins for wandb and trackio that write down how they were called."""
    calls = {}
    for name in ("wandb", "trackio"):
        heard = calls.setdefault(name, [])
        module = SimpleNamespace(
            init=lambda heard=heard, **options: heard.append(("init", options)),
            log=lambda metrics, step, heard=heard: heard.append(("log", step, metrics)),
            finish=lambda heard=heard: heard.append(("finish",)),
        )
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(runlog.importlib.util, "find_spec", lambda name: object())
    return calls


def test_trackers_are_started_told_and_finished(tmp_path, trackers):
    with RunLog(tmp_path / "first", trackers=("wandb", "trackio"), project="p") as log:
        log.log(0, {"loss": 1.0})
    for name in ("wandb", "trackio"):
        (_, options), *rest = trackers[name]
        assert (options["project"], options["name"]) == ("p", "first")
        assert rest == [("log", 0, {"loss": 1.0}), ("finish",)]
    assert trackers["trackio"][0][1]["resume"] == "never"


def test_a_resumed_run_goes_on_in_the_same_tracker_run_and_a_restarted_one_does_not(tmp_path, trackers):
    for resume_step in (None, 4, 0):
        RunLog(tmp_path, trackers=("wandb", "trackio"), resume_step=resume_step).close()
    ids = [call[1]["id"] for call in trackers["wandb"] if call[0] == "init"]
    assert ids[0] == ids[1] != ids[2]
    assert [call[1]["resume"] for call in trackers["trackio"] if call[0] == "init"] == ["never", "allow", "never"]


def test_live_line_is_short_and_leaves_out_what_is_absent():
    metrics = {
        "reward/mean": -0.4123,
        "reopold/clipped": 0.07,
        "mask/kept": 0.93,
        "student/entropy": 0.31,
        "rollout/length": 34.2,
        "validation/accuracy": 0.71,
        "loss": 3.0,
    }
    assert live_line(metrics) == "R -0.412 clipped 7% kept 93% H 0.31 len 34.2 acc 71.0%"
    assert live_line({"reward/mean": math.nan, "rollout/length": 3.0}) == "R nan len 3.0"
    assert live_line({}) == ""
