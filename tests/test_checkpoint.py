"""Checkpoints: whole or absent, rotated, without pickle, and exact."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from cli_help import SMALL, read_lines, small_pair, small_rows, tree, warm
from torch import nn

from reopold_vl import checkpoint
from reopold_vl.checkpoint import CheckpointError, checkpoints, load_checkpoint, save_checkpoint, write_atomically
from reopold_vl.optim import build_optimizer, build_scheduler, update


class Training:
    """A module with a matrix, a bias and a tied weight, its AdamW and a warm-up that ends after three updates."""

    def __init__(self, seed: int, schedule: str = "linear") -> None:
        torch.manual_seed(seed)
        self.model: Any = nn.ModuleDict({"embed": nn.Embedding(5, 4), "mix": nn.Linear(4, 4), "head": nn.Linear(4, 5)})
        self.model["head"].weight = self.model["embed"].weight
        self.optimizer = build_optimizer(self.model, lr=0.1, betas=(0.8, 0.95), weight_decay=0.1)
        self.scheduler = build_scheduler(self.optimizer, name=schedule, warmup_updates=3, updates=10)

    def step(self, seed: int) -> None:
        ids = torch.randint(0, 5, (6,), generator=torch.Generator().manual_seed(seed))
        logits = self.model["head"](self.model["mix"](self.model["embed"](ids)).tanh())
        nn.functional.cross_entropy(logits, ids.flip(0)).backward()
        update(self.optimizer, self.scheduler, self.model.parameters(), max_grad_norm=1.0)

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def save(self, directory: Path, step: int, *, keep: int = 2, **state: object) -> Path:
        return save_checkpoint(directory, step=step, state=state, keep=keep, **self.parts())

    def everything(self) -> dict[str, Any]:
        moments = self.optimizer.state_dict()["state"]
        flat = {f"{index}.{name}": value for index, own in moments.items() for name, value in own.items()}
        return {**self.model.state_dict(), **flat}

    @property
    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def assert_equal(first: Training, second: Training) -> None:
    one, two = first.everything(), second.everything()
    assert one.keys() == two.keys() and len(one) > 6
    assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(two[name])) for name in one)
    assert first.rates == second.rates


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("done", [1, 2, 5])
def test_what_is_loaded_goes_on_exactly(done: int, schedule: str, tmp_path: Path) -> None:
    straight = Training(0, schedule)
    for step in range(done):
        straight.step(step)
    path = straight.save(tmp_path, done, rollouts=12, seconds=0.1)
    resumed = Training(1, schedule)  # other weights: all must come from the file
    record = load_checkpoint(path, **resumed.parts())
    assert record == {"step": done, "rollouts": 12, "seconds": 0.1}
    assert_equal(straight, resumed)
    assert resumed.model["head"].weight is resumed.model["embed"].weight  # tied before, tied after
    for step in range(done, 8):
        straight.step(step)
        resumed.step(step)
    assert_equal(straight, resumed)
    assert straight.scheduler.get_last_lr() == resumed.scheduler.get_last_lr() == straight.rates


def test_weights_alone_would_not_do(tmp_path: Path) -> None:
    """The test above could not see a lost optimizer if the moments did not matter: they do."""
    straight, fresh = Training(0), Training(0)
    for step in range(3):
        straight.step(step)
    fresh.model.load_state_dict(straight.model.state_dict())
    straight.step(3)
    fresh.step(3)
    assert not torch.equal(straight.model["mix"].weight, fresh.model["mix"].weight)


def test_a_checkpoint_before_the_first_update_loads(tmp_path: Path) -> None:
    first, second = Training(0), Training(1)
    load_checkpoint(first.save(tmp_path, 0), **second.parts())
    first.step(0)
    second.step(0)
    assert_equal(first, second)


def test_no_pickle_and_nothing_else(tmp_path: Path) -> None:
    training = Training(0)
    training.step(0)
    path = training.save(tmp_path, 1)
    assert set(tree(tmp_path)) == {f"step-000001/{name}" for name in ("model.safetensors", "optimizer.safetensors")} | {
        "step-000001/state.json"
    }
    assert json.loads((path / "state.json").read_text())["step"] == 1


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    training = Training(0)
    (tmp_path / "notes.txt").write_text("mine")
    for step in (5, 20, 100):
        training.save(tmp_path, step, keep=2)
    assert [checkpoint.step_of(path) for path in checkpoints(tmp_path)] == [20, 100]
    assert (tmp_path / "notes.txt").exists()
    training.save(tmp_path, 101, keep=1)
    assert [checkpoint.step_of(path) for path in checkpoints(tmp_path)] == [101]


def test_unfinished_directories_are_no_checkpoints(tmp_path: Path) -> None:
    training = Training(0)
    path = training.save(tmp_path, 1)
    (tmp_path / ".step-000002.tmp").mkdir()
    (tmp_path / ".step-000002.tmp" / "state.json").write_text("{}")
    (tmp_path / "step-000003").mkdir()
    assert checkpoints(tmp_path) == [path]
    assert checkpoints(tmp_path / "absent") == []
    training.save(tmp_path, 2)  # what a killed run left under the same name is no obstacle
    assert not (tmp_path / ".step-000002.tmp").exists()


@pytest.mark.parametrize("failing", ["model.safetensors", "optimizer.safetensors", "state.json", "flush"])
def test_a_full_disk_leaves_the_last_checkpoint_good(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(0)
    training.step(0)
    good = training.save(tmp_path, 1)
    before = tree(tmp_path)
    save_file, write_text = checkpoint.save_file, Path.write_text

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def save_some(tensors: Any, path: Path) -> None:
        if path.name != failing:
            save_file(tensors, path)
            return
        path.write_bytes(b"half of it")
        full()

    def write_some(path: Path, text: str, **options: Any) -> int:
        return full() if path.name == failing else write_text(path, text, **options)

    if failing == "flush":
        monkeypatch.setattr(checkpoint.os, "fsync", full)
    monkeypatch.setattr(checkpoint, "save_file", save_some)
    monkeypatch.setattr(Path, "write_text", write_some)
    training.step(1)
    with pytest.raises(CheckpointError) as caught:
        training.save(tmp_path, 2)
    monkeypatch.undo()
    message = str(caught.value)
    assert "step-000002 could not be saved: the disk is full" in message and str(good) in message
    assert tree(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    again = Training(1)
    load_checkpoint(good, **again.parts())
    training.save(tmp_path, 2)  # with room again it goes on
    assert len(checkpoints(tmp_path)) == 2


def test_the_first_checkpoint_that_fails_says_that_there_is_none(tmp_path: Path) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(CheckpointError, match="Permission denied; no earlier checkpoint exists"):
        write_atomically(tmp_path / "step-000001", refuse)
    assert list(tmp_path.iterdir()) == []


def test_another_error_does_not_pass_as_a_full_disk(tmp_path: Path) -> None:
    def bug(_: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "step-000001", bug)
    assert checkpoints(tmp_path) == []


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = Training(0).save(tmp_path, 1)
    other = Training(0)
    other.model["mix"] = nn.Linear(4, 6)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path, **other.parts())


@pytest.mark.parametrize("content", ["", "{", "{}", '{"step": 1}'])
def test_a_broken_state_file_is_refused(content: str, tmp_path: Path) -> None:
    training = Training(0)
    path = training.save(tmp_path, 1)
    (path / "state.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **training.parts())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_that_cannot_write_any_more_ends_with_one_line_and_can_be_resumed(tmp_path: Path) -> None:
    """No file may grow past a limit that the operating system enforces: the checkpoints' optimizer is the largest."""
    rows = small_rows(tmp_path / "data")
    flags = [*small_pair(tmp_path), "--data.path", rows, "--output-dir", tmp_path / "runs", *SMALL, "--save-every", 1]
    first = warm().run(*flags, "--steps", 1)
    assert first.code == 0, first.stderr[-2000:]
    run = tmp_path / "runs" / "embedded"
    [good] = checkpoints(run / "checkpoints")
    before = tree(good)
    largest = max(map(len, before.values()))
    full = warm().run("--resume", run, "--steps", 3, file_limit=largest - 1000)
    assert full.code in (1, 2), (full.code, full.stderr[-2000:])
    last = full.lines[-1]
    assert last.startswith("error: ") and "step-000002 could not be saved" in last and str(good) in last
    assert "Traceback" not in full.stderr
    assert tree(good) == before and checkpoints(run / "checkpoints") == [good]
    assert not list((run / "checkpoints").glob(".*"))
    resumed = warm().run("--resume", run)
    assert resumed.code == 0, resumed.stderr[-2000:]
    assert [record["step"] for record in read_lines(run / "metrics.jsonl")] == [0, 1, 2, 3]
    assert all(math.isfinite(record["loss"]) for record in read_lines(run / "metrics.jsonl")[1:])
