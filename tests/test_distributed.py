"""Several processes do what one does: DDP and FSDP2 over gloo on the CPU, whole runs, prompts that cannot be halved.

Rows are mixed (every third has no picture), both phases of the objective and a moving average take part, and each step
makes two updates.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from cli_help import ROOT, environment, read_lines, small_pair, small_rows, wait_for, warm
from safetensors.torch import load_file

from reopold_vl.checkpoint import checkpoints

STEPS = 4
FSDP = ("--distributed.strategy", "fsdp", "--distributed.fetch-tokens", "0")  # prompts are shared
SHARDED_TEACHER = (*FSDP, "--distributed.cpu-offload", "--distributed.shard-teacher")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def flags(root: Path) -> list[str]:
    rows = small_rows(root / "data", 24)
    records = [json.loads(line) for line in rows.read_text().splitlines()]
    for record in records[::3]:
        del record["image"]
    rows.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [
        *small_pair(root),
        *("--data.path", str(rows), "--data.no-require-image", "--data.validation-rows", "2", "--data.test-rows", "2"),
        *("--steps", str(STEPS), "--prompts-per-step", "5", "--rollout.n", "2", "--rollout.max-new-tokens", "6"),
        *("--objective.switch-step", "2", "--optim.updates-per-batch", "2", "--optim.rows-at-once", "2"),
        *("--optim.lr", "5e-5", "--optim.weight-decay", "0.1", "--optim.ema-decay", "0.9"),
        *("--save-every", "2", "--keep", "3", "--eval-every", "2", "--threads", "1"),
    ]


@pytest.fixture(scope="module")
def one(root: Path, flags: list[str]) -> Path:
    """The run of one process, without any of this."""
    result = warm().run(*flags, "--output-dir", root, "--name", "one")
    assert result.code == 0, result.stderr[-2000:]
    return root / "one"


@pytest.fixture(scope="module")
def fsdp(root: Path, flags: list[str]) -> Path:
    return ranks.run_of(root, [*flags, *FSDP], name="fsdp", size=2)


def distance(run: Path, other: Path, model: str = "student") -> float:
    """The largest difference between any two weights."""
    first, second = (load_file(path / model / "model.safetensors") for path in (run, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def numbers(run: Path) -> list[dict[str, Any]]:
    records = read_lines(run / "metrics.jsonl")
    return [{name: value for name, value in record.items() if "seconds/" not in name} for record in records]


def assert_same(run: Path, one: Path, *, teacher: bool = True) -> None:
    """The same answers, signals, metrics and measurements, and weights equal to 1e-6 after all steps."""
    assert distance(run, one) < 1e-6 and distance(run, one, "student_ema") < 1e-6
    assert len(numbers(run)) == len(numbers(one)) == STEPS + 1
    for mine, theirs in zip(numbers(run), numbers(one), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-4, abs=2e-5)
    for mine, theirs in zip(*(read_lines(path / "sample_rollouts.jsonl") for path in (run, one)), strict=True):
        for name in ("step", "question", "images", "tokens", "kept", "correct", "finish_reason"):
            assert mine[name] == theirs[name], name
        assert mine["rewards"] == pytest.approx(theirs["rewards"], abs=1e-4)
    for name in ("before", "after", *(["teacher"] if teacher else [])):
        assert read_lines(run / f"test_{name}.jsonl") == read_lines(one / f"test_{name}.jsonl")
    summaries = [json.loads((path / "summary.json").read_text()) for path in (run, one)]
    assert summaries[0]["rollouts"] == summaries[1]["rollouts"] == STEPS * 5 * 2
    assert summaries[0]["accuracy"]["after"] == summaries[1]["accuracy"]["after"]


def test_the_run_that_all_are_compared_with_learns_in_both_phases(flags: list[str], one: Path) -> None:
    start = load_file(Path(flags[1]) / "model.safetensors")
    end = load_file(one / "student" / "model.safetensors")
    assert all(float((start[name] - end[name]).abs().max()) > 1e-5 for name in start)
    assert [record["reopold/phase"] for record in numbers(one)[1:]] == [0, 0, 1, 1]
    assert all(0 < record["mask/kept"] < 1 for record in numbers(one)[1:])


def test_ddp_is_one_process(root: Path, flags: list[str], one: Path) -> None:
    run = ranks.run_of(root, flags, name="ddp", size=2)
    assert_same(run, one)
    names = {path.name for path in checkpoints(run / "checkpoints")[-1].iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json"}


def test_fsdp_is_one_process(fsdp: Path, one: Path) -> None:
    assert_same(fsdp, one)
    for path in checkpoints(fsdp / "checkpoints"):
        shards = sorted(file.name[:11] for file in path.iterdir() if file.suffix == ".safetensors")
        assert shards == ["shard-00001", "shard-00002"]


def test_fsdp_with_offloading_and_a_teacher_cut_up_as_well(root: Path, flags: list[str], one: Path) -> None:
    run = ranks.run_of(root, [*flags, *SHARDED_TEACHER], name="offloaded", size=2)
    assert_same(run, one, teacher=False)
    assert read_lines(run / "test_teacher.jsonl") == []


def test_fsdp_with_layers_that_are_computed_again(root: Path, flags: list[str], one: Path) -> None:
    run = ranks.run_of(root, [*flags, *FSDP, "--student.gradient-checkpointing"], name="again", size=2)
    assert distance(run, one) < 1e-6


def test_processes_without_a_single_prompt(root: Path, flags: list[str]) -> None:
    """Two prompts, three processes, two updates: in each update two of them have nothing to do."""
    few = [*flags, "--prompts-per-step", "2", "--steps", "2", "--data.test-rows", "0"]
    alone = ranks.run_of(root, few, name="few", size=1)
    for strategy in (("--distributed.strategy", "ddp"), FSDP):
        run = ranks.run_of(root, [*few, *strategy], name=f"few-{strategy[1]}", size=3)
        assert distance(run, alone) < 3e-6


def halfway(run: Path, name: str) -> Path:
    """A copy of a finished run as it was after two steps."""
    copy = run.parent / name
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS:06d}")
    for directory in ("student", "student_ema"):
        shutil.rmtree(copy / directory)
    return copy


@pytest.mark.parametrize("size", [1, 3])
def test_a_cut_up_run_goes_on_in_another_number_of_processes(size: int, fsdp: Path, one: Path) -> None:
    run = halfway(fsdp, f"from-2-to-{size}")
    if size == 1:
        result = warm().run("--resume", run, "--distributed.strategy", "none")
        assert result.code == 0, result.stderr[-2000:]
    else:
        assert [result.code for result in ranks.run(["--resume", run], size=size)] == [0] * size
    assert_same(run, one)


def test_a_run_of_one_process_goes_on_cut_up_over_two(one: Path) -> None:
    run = halfway(one, "from-1-to-2")
    results = ranks.run(["--resume", run, *FSDP], size=2)
    assert [result.code for result in results] == [0, 0], results[0].stderr[-2000:]
    assert f"resuming after step 2 from {run}" in results[0].stdout and results[1].stdout == ""
    assert_same(run, one)


def test_a_signal_to_one_process_stops_all_after_the_same_step(root: Path, flags: list[str], one: Path) -> None:
    run = root / "stopped"
    with ranks.running([*flags, *FSDP, "--output-dir", root, "--name", "stopped"], size=2) as jobs:
        wait_for(lambda: (run / "metrics.jsonl").exists() and len(read_lines(run / "metrics.jsonl")) > 1, "a step")
        jobs[1].send(signal.SIGTERM)
        results = [job.result() for job in jobs]
    told = [line for result in results for line in result.lines if line.startswith("stopped by")]
    assert len(told) == 1, "\n".join(f"{result.code}: {result.stderr[-2000:]}" for result in results)
    assert f"torchrun --nproc-per-node 2 -m reopold_vl.train --resume {run}" in told[0]
    assert sorted(result.code for result in results) == [1, 143]
    done = len(read_lines(run / "metrics.jsonl")) - 1
    assert 1 <= done < STEPS and checkpoints(run / "checkpoints")[-1].name == f"step-{done:06d}"
    assert [result.code for result in ranks.run(["--resume", run], size=2)] == [0, 0]
    assert_same(run, one)


def errors(results: list[Any]) -> list[str]:
    assert all(result.code not in (0, -signal.SIGALRM) for result in results), [result.code for result in results]
    assert not [result for result in results if "Traceback" in result.stderr]
    return [line for result in results for line in result.lines if line.startswith("error: ")]


def test_an_error_of_one_process_ends_all_with_its_one_line(root: Path, flags: list[str]) -> None:
    args = [*flags, "--output-dir", root, "--name", "broken"]
    [line] = errors(ranks.run(args, size=2, own={1: ["--teacher.path", str(root / "absent")]}))
    assert f"{root / 'absent'}: no such directory" in line
    assert not (root / "broken").exists()


def test_a_process_that_is_killed_ends_the_others(root: Path, flags: list[str]) -> None:
    with ranks.running([*flags, "--steps", "400", "--output-dir", root, "--name", "killed"], size=2) as jobs:
        metrics = root / "killed" / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and len(read_lines(metrics)) > 1, "a step")
        jobs[1].send(signal.SIGKILL)
        [line] = errors([job.result() for job in jobs])
    assert "process 0 of 2 lost contact with another one" in line


def test_a_disk_that_is_full_for_one_process(fsdp: Path) -> None:
    run = halfway(fsdp, "full")
    [good] = checkpoints(run / "checkpoints")
    shard = next(good.glob("shard-00002*")).stat().st_size
    [line] = errors(ranks.run(["--resume", run], size=2, limits={1: shard - 1000}))
    assert f"step-{STEPS:06d} could not be saved" in line and f"the last good checkpoint is {good}" in line
    assert checkpoints(run / "checkpoints") == [good] and not list((run / "checkpoints").glob(".*"))
    damaged = next(good.glob("shard-00001*"))
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    [line] = errors(ranks.run(["--resume", run], size=2))
    assert f"checkpoint {good} cannot be read" in line


def test_adapters_over_two_processes(root: Path, flags: list[str]) -> None:
    pytest.importorskip("peft")
    lora = [*flags, "--student.lora.rank", "4", "--steps", "2", "--optim.lr", "1e-3", "--distributed.fetch-tokens", "0"]
    alone, *others = (
        ranks.run_of(root, [*lora, "--distributed.strategy", strategy], name=f"lora-{strategy}", size=size)
        for strategy, size in (("auto", 1), ("ddp", 2), ("fsdp", 2))
    )
    weights = [load_file(run / "student" / "adapter_model.safetensors") for run in (alone, *others)]
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert max(float((other[name] - weights[0][name]).abs().max()) for name in other) < 1e-6
    assert all(bool(torch.any(tensor != 0)) for tensor in weights[0].values())


def test_weights_in_bfloat16_with_masters(root: Path, flags: list[str]) -> None:
    """Half precision rounds each gradient in its own way; the first step's answers and scores are still the same."""
    half = [*flags, "--student.dtype", "bfloat16", "--optim.master", "float32", "--steps", "1"]
    alone, cut = (
        numbers(ranks.run_of(root, [*half, "--distributed.strategy", strategy], name=f"half-{strategy}", size=size))[1]
        for strategy, size in (("auto", 1), ("fsdp", 2))
    )
    for name in ("reward/mean", "reward/p10", "student/entropy", "rollout/length", "mask/kept"):
        assert cut[name] == pytest.approx(alone[name], rel=1e-3), name
    assert cut["optim/grad_norm"] == pytest.approx(alone["optim/grad_norm"], rel=0.05)


def test_torchrun_itself(root: Path, flags: list[str], one: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "reopold_vl.train", *flags, "--output-dir", str(root), "--name", "torchrun"]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Wilson interval") == done.stdout.count("summary.json are in") == 1
    assert "Warning" not in done.stderr
    assert_same(root / "torchrun", one)


def test_a_strategy_that_does_not_suit_the_processes(root: Path, flags: list[str]) -> None:
    refused = warm().run(*flags, *FSDP, "--output-dir", root, "--name", "alone")
    assert refused.code == 2 and "distributed.strategy is fsdp: allowed is none or auto" in refused.stderr
    [line] = errors(ranks.run([*flags, "--distributed.strategy", "none", "--output-dir", root, "--name", "no"], size=2))
    assert "distributed.strategy is none: allowed is ddp, fsdp or auto for 2 processes" in line
    assert not (root / "alone").exists() and not (root / "no").exists()
