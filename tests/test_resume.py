"""A run that was stopped, or killed, and resumed is bit by bit the run that was never stopped."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import finish, read_lines, refused, small_pair, small_rows, start, tree, wait_for, warm
from safetensors.torch import load_file

from reopold_vl.checkpoint import checkpoints
from reopold_vl.train import main

STEPS = 14
EVERY = 4


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings that use all that a resumed run must restore: both phases, AdamW with decay, a schedule, epochs."""
    root = tmp_path_factory.mktemp("resume")
    rows = small_rows(root, 40)
    return [
        *small_pair(root),
        *("--data.path", str(rows), "--data.validation-rows", "4", "--data.test-rows", "4"),
        *("--steps", str(STEPS), "--prompts-per-step", "12", "--rollout.n", "4", "--rollout.max-new-tokens", "24"),
        *("--objective.switch-step", "6", "--optim.schedule", "cosine", "--optim.warmup-updates", "3"),
        *("--optim.weight-decay", "0.1", "--optim.updates-per-batch", "2"),
        *("--save-every", str(EVERY), "--eval-every", "3", "--threads", "1", "--output-dir", str(root / "runs")),
    ]


@pytest.fixture(scope="module")
def straight(flags: list[str]) -> Path:
    """The run that was never stopped."""
    result = warm().run(*flags, "--name", "straight")
    assert result.code == 0, result.stderr[-2000:]
    return Path(flags[-1]) / "straight"


def steps_logged(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) - 1 if path.exists() else -1  # the first line is step 0


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if not name.startswith("seconds/")}
        for record in read_lines(path)
    ]


def assert_same_run(run: Path, straight: Path) -> None:
    first, second = (load_file(path / "student" / "model.safetensors") for path in (straight, run))
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]
    assert without_seconds(run / "metrics.jsonl") == without_seconds(straight / "metrics.jsonl")
    for name in ("reward_histogram.jsonl", "sample_rollouts.jsonl", "test_before.jsonl", "test_after.jsonl"):
        assert (run / name).read_bytes() == (straight / name).read_bytes(), name
    last = f"step-{STEPS:06d}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (run / "checkpoints" / last / name).read_bytes() == (straight / "checkpoints" / last / name).read_bytes()
    summaries = [json.loads((path / "summary.json").read_text()) for path in (run, straight)]
    assert {**summaries[0], "seconds": 0} == {**summaries[1], "seconds": 0}
    assert summaries[0]["rollouts"] == STEPS * 12 * 4


def test_kill_9_and_resume(flags: list[str], straight: Path) -> None:
    run = straight.parent / "killed"
    process = start(*flags, "--name", "killed")
    wait_for(lambda: process.poll() is not None or steps_logged(run) > EVERY + 1, "steps after the first checkpoint")
    process.send_signal(signal.SIGKILL)
    killed = finish(process)
    assert killed.code == -signal.SIGKILL
    saved = [path.name for path in checkpoints(run / "checkpoints")]
    assert saved and saved[0] == f"step-{EVERY:06d}"
    done = steps_logged(run)
    assert EVERY < done < STEPS and not (run / "summary.json").exists() and not (run / "student").exists()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "loss": 0.')  # what a kill in the middle of a write leaves
    resumed = warm().run("--resume", run)
    assert resumed.code == 0, resumed.stderr[-2000:]
    assert f"resuming after step {int(saved[-1][-6:])}" in resumed.stdout
    assert_same_run(run, straight)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_ends_after_the_step_and_says_how_to_go_on(
    number: signal.Signals, code: int, flags: list[str], straight: Path
) -> None:
    run = straight.parent / number.name
    with warm().running(*flags, "--name", number.name) as job:
        wait_for(lambda: steps_logged(run) >= 1, "the first step")
        job.send(number)
        stopped = job.result()
    assert stopped.code == code, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr
    done = steps_logged(run)
    assert 1 <= done < STEPS
    newest = checkpoints(run / "checkpoints")[-1]
    assert newest.name == f"step-{done:06d}"  # nothing that was logged is lost
    told = re.search(rf"stopped by {number.name}: go on with  python -m reopold_vl\.train (.*)", stopped.stderr)
    assert told, stopped.stderr[-500:]
    # Half-written checkpoints, as a kill leaves them, are no checkpoints.
    for name in (".step-000009.tmp", "step-000099"):
        shutil.copytree(newest, run / "checkpoints" / name)
        (run / "checkpoints" / name / "state.json").unlink()
    resumed = warm().run(*shlex.split(told[1]))
    assert resumed.code == 0, resumed.stderr[-2000:]
    assert f"resuming after step {done} from {newest}" in resumed.stdout
    assert_same_run(run, straight)


def test_a_finished_run_reports_again(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved"  # a run directory may be moved
    shutil.copytree(straight, run)
    (run / "report.md").unlink()
    shutil.rmtree(run / "plots")
    shutil.rmtree(run / "student")
    result = warm().run("--resume", run)
    assert result.code == 0, result.stderr[-2000:]
    assert "overall" in result.stdout and (run / "report.md").is_file() and (run / "plots" / "reward.png").is_file()
    assert_same_run(run, straight)
    assert (run / "summary.json").read_bytes() == (straight / "summary.json").read_bytes()  # seconds as well


def test_a_finished_run_can_be_prolonged_but_not_shortened(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    shutil.copytree(straight, run)
    before = tree(run)
    message = refused(warm().run("--resume", run, "--steps", STEPS - 1))
    assert f"has done {STEPS} already" in message and tree(run) == before
    result = warm().run("--resume", run, "--steps", STEPS + 2)
    assert result.code == 0, result.stderr[-2000:]
    assert [record["step"] for record in read_lines(run / "metrics.jsonl")] == list(range(STEPS + 3))
    assert json.loads((run / "summary.json").read_text())["steps"] == STEPS + 2
    assert [path.name for path in checkpoints(run / "checkpoints")] == [f"step-{n:06d}" for n in (STEPS, STEPS + 2)]


def test_resume_with_another_setting_is_refused(straight: Path) -> None:
    before = tree(straight)
    assert "--optim.lr cannot be combined with --resume" in refused(
        warm().run("--resume", straight, "--optim.lr", "0.1")
    )
    assert tree(straight) == before


@pytest.mark.parametrize("broken", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_corrupted_checkpoint_is_one_line(broken: str, straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "corrupted"
    shutil.copytree(straight, run)
    newest = checkpoints(run / "checkpoints")[-1]
    content = (newest / broken).read_bytes()
    (newest / broken).write_bytes(content[: len(content) // 2])
    message = refused(warm().run("--resume", run))
    assert f"checkpoint {newest} cannot be read" in message
    shutil.rmtree(newest)  # what the message advises
    result = warm().run("--resume", run)
    assert result.code == 0, result.stderr[-2000:]
    assert_same_run(run, straight)


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    assert "no run lies there" in refused(warm().run("--resume", tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []


def test_a_signal_before_anything_is_written_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reopold_vl.assemble.load", lambda config: signal.raise_signal(signal.SIGTERM))
    assert main(["--output-dir", str(tmp_path)]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM: nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_another_learning_rate_in_the_config_is_heeded(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / straight.name
    shutil.copytree(straight, run)
    text = (run / "config.yaml").read_text()
    rate = re.search(r"^  lr: (.*)$", text, re.MULTILINE)
    assert rate is not None
    (run / "config.yaml").write_text(text.replace(rate[0], "  lr: 1.0e-06"))
    done = len(read_lines(run / "metrics.jsonl")) - 1
    assert main(["--resume", str(run), "--steps", str(done + 1)]) == 0
    rates = [record["optim/lr"] for record in read_lines(run / "metrics.jsonl")[1:]]
    assert rates[-2] > 2e-6 > 1e-6 >= rates[-1] > 0
