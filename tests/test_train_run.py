"""The default run at reduced size, from the command line: everything that it must leave behind."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_help import Result, environment, read_lines, refused, run_fresh, small_pair, small_rows, tree, warm
from PIL import Image
from safetensors.torch import load_file

from reopold_vl.ask import Asked, Asking
from reopold_vl.config import DataConfig
from reopold_vl.config_file import read_config
from reopold_vl.models import resolve
from reopold_vl.objectives import Reopold
from reopold_vl.presets import PRESETS
from reopold_vl.progress import Stopwatch
from reopold_vl.teachers import TeacherError
from reopold_vl.train import main
from reopold_vl.types import ScoredBatch, TeacherScores, TokenSignal
from reopold_vl.zoo.task import TYPES

STEPS, PROMPTS, TEST, VALIDATION = 3, 8, 44, 22
REDUCED = [
    *("--steps", STEPS, "--prompts-per-step", PROMPTS, "--data.test-rows", TEST),
    *("--data.validation-rows", VALIDATION, "--eval-every", 2, "--threads", 1),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The default run, reduced, in a fresh interpreter."""
    output = tmp_path_factory.mktemp("runs")
    result = run_fresh(*REDUCED, "--output-dir", output, timeout=300)
    assert result.code == 0, result.stderr[-3000:]
    return output / "embedded", result


@pytest.fixture
def run(finished: tuple[Path, Result]) -> Path:
    return finished[0]


def test_terminal_shows_progress_and_the_table(finished: tuple[Path, Result]) -> None:
    run, result = finished
    assert re.search(r"step 3/3: R -?\d.*clipped \d+% kept \d+% H \d.*len \d.*acc \d", result.stdout + result.stderr)
    table = result.stdout.replace("\n", " ")
    for word in (*TYPES, "before", "after", "teacher", "overall", "Wilson"):
        assert word in table, word
    assert str(run) in result.stdout
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr


def test_all_files_are_there(run: Path) -> None:
    files = set(tree(run))
    wanted = {"config.yaml", "metrics.jsonl", "rollouts.html", "summary.json", "report.md", "student/config.json"}
    wanted |= {"student/model.safetensors", "student/tokenizer.json", "student/chat_template.jinja"}
    wanted |= {f"plots/{name}.png" for name in ("accuracy", "reward", "mask")}
    wanted |= {"test_before.jsonl", "test_after.jsonl", "test_teacher.jsonl"}
    assert wanted <= files
    assert any(name.startswith("tensorboard/events.out.tfevents") for name in files)
    assert not [name for name in files if ".tmp" in name or name.endswith((".bin", ".pt", ".pkl", ".pth"))]


def test_summary(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert {"before", "after", "teacher"} == set(summary["accuracy"])
    for name in summary["accuracy"]:
        graded = read_lines(run / f"test_{name}.jsonl")
        assert len(graded) == TEST == summary["num_problems"]
        assert summary["accuracy"][name] == sum(item["correct"] for item in graded) / TEST
        low, high = summary["interval"][name]
        assert 0 <= low <= summary["accuracy"][name] <= high <= 1
    assert summary["rollouts"] == STEPS * PROMPTS * PRESETS["embedded"].rollout.n
    assert (summary["steps"], summary["seed"]) == (STEPS, 0)
    assert 0 < summary["seconds"]["train"] < summary["seconds"]["total"]
    assert summary["skipped"] == {"prompts": 0, "updates": 0}
    assert 0 < 3 * summary["parameters"]["student"] <= summary["parameters"]["teacher"] + 3


def test_test_problems_cover_every_type_and_are_the_same_for_all(run: Path) -> None:
    graded = {name: read_lines(run / f"test_{name}.jsonl") for name in ("before", "after", "teacher")}
    ids = [[item["id"] for item in items] for items in graded.values()]
    assert ids[0] == ids[1] == ids[2] and len(set(ids[0])) == TEST
    assert {item["source"] for item in graded["before"]} == set(TYPES)


def test_config_reads_back(run: Path) -> None:
    wanted = replace(
        PRESETS["embedded"],
        steps=STEPS,
        prompts_per_step=PROMPTS,
        data=DataConfig(validation_rows=VALIDATION, test_rows=TEST),
        eval_every=2,
        threads=1,
        output_dir=run.parent,
    )
    assert read_config(run / "config.yaml") == wanted


def test_metrics_have_one_line_a_step(run: Path) -> None:
    records = read_lines(run / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(STEPS + 1))
    wanted = ("loss", "reward/mean", "reward/p01", "reward/p90", "student/entropy", "reopold/clipped", "mask/kept")
    wanted += ("rollout/length", "rollout/truncated", "rollout/accuracy", "optim/grad_norm", "optim/lr", "ratio/max")
    for record in records[1:]:
        assert all(value is not None and math.isfinite(value) for value in record.values()), record
        assert set(wanted) <= set(record)
        assert record["optim/grad_norm"] > 0 and record["reward/p01"] <= record["reward/mean"]
        assert record["mask/kept"] == pytest.approx(1 - record["reopold/clipped"])  # exploration, these steps
        assert 1 <= record["rollout/length"] <= PRESETS["embedded"].rollout.max_new_tokens
        assert record["rollout/total"] == record["step"] * PROMPTS * PRESETS["embedded"].rollout.n
    assert [record["step"] for record in records if "validation/accuracy" in record] == [0, 2, 3]
    assert {record["validation/num"] for record in records if "validation/num" in record} == {VALIDATION}


def test_tensorboard_events_hold_the_same_numbers(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for name in ("loss", "reward/mean", "validation/accuracy"):
        logged = {record["step"]: record[name] for record in read_lines(run / "metrics.jsonl") if name in record}
        seen = {event.step: event.value for event in events.Scalars(name)}
        assert seen == pytest.approx(logged, rel=1e-6)


def test_plots_are_pictures(run: Path) -> None:
    for name in ("accuracy", "reward", "mask"):
        with Image.open(run / "plots" / f"{name}.png") as image:
            assert image.format == "PNG" and min(image.size) >= 400
            colours = image.convert("RGB").getcolors(2**24)
            assert colours is not None and len(colours) > 50, f"{name}.png is blank"


def test_page_shows_images_and_asks_for_nothing(run: Path) -> None:
    html = (run / "rollouts.html").read_text()
    assert html.count('src="data:image/png;base64,') >= 2
    assert not re.search(r"(src|href|action|data)\s*=\s*[\"']?\s*(https?:)?//|url\(\s*[\"']?(https?:)?//|@import", html)
    assert "<script" not in html.lower() and "javascript:" not in html.lower()
    assert "<link" not in html.lower()
    kept = read_lines(run / "sample_rollouts.jsonl")
    assert {record["step"] for record in kept} == {1, 2, 3}
    assert len(kept) == 3 * 2 * PRESETS["embedded"].rollout.n  # two prompts of the first and each measured step
    for record in kept:
        lengths = {len(record[name]) for name in ("tokens", "rewards", "student_logprobs", "teacher_logprobs", "kept")}
        assert len(lengths) == 1
        gap = [t - s for t, s in zip(record["teacher_logprobs"], record["student_logprobs"], strict=True)]
        assert record["rewards"] == pytest.approx(gap, abs=1e-4)


def test_report_is_the_table(run: Path) -> None:
    report = (run / "report.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    overall = next(line for line in report.splitlines() if "overall" in line)
    for name in ("before", "after", "teacher"):
        assert f"{100 * summary['accuracy'][name]:.1f}" in overall
    assert all(kind in report for kind in TYPES)


LOADS_ALONE = """
import reopold_vl.torchvision_shim  # torchvision is broken beside a CPU torch; nothing else of ours is imported
import sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many red squares?"}]}
text = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
inputs = processor(text=[text], images=[Image.new("RGB", (84, 84), "red")], return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
ours = {name for name in sys.modules if name.startswith("reopold_vl")}
print(type(model).__name__, answer.shape[1] - inputs["input_ids"].shape[1], sorted(ours))
"""


def test_student_loads_without_us(run: Path) -> None:
    command = [sys.executable, "-c", LOADS_ALONE, str(run / "student")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    name, tokens, ours = done.stdout.strip().split(" ", 2)
    assert name == "Qwen2_5_VLForConditionalGeneration" and 1 <= int(tokens) <= 4
    assert ours == "['reopold_vl', 'reopold_vl.torchvision_shim']"
    assert not list((run / "student").glob("*.py"))


def test_student_has_learned_something(run: Path) -> None:
    before = load_file(f"{resolve('zoo:student')}/model.safetensors")
    after = load_file(run / "student" / "model.safetensors")
    assert before.keys() == after.keys()
    same = [name for name in before if torch.equal(before[name].float(), after[name].float())]
    assert not same, f"unchanged: {same}"
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())


def test_a_run_is_not_overwritten_unless_asked(run: Path) -> None:
    before = tree(run)
    message = refused(warm().run(*REDUCED, "--output-dir", run.parent))
    assert f"--resume {run}" in message and "--overwrite" in message and "--name" in message
    assert tree(run) == before
    again = ["--steps", 1, "--prompts-per-step", 2, "--data.test-rows", 0, "--data.validation-rows", 0, "--threads", 1]
    result = warm().run(*again, "--output-dir", run.parent, "--name", "other")
    assert result.code == 0 and "no test problems" in result.stdout
    other = run.parent / "other"
    (other / "left_over").write_text("from the first run")
    result = warm().run(*again, "--output-dir", run.parent, "--name", "other", "--overwrite")
    assert result.code == 0, result.stderr[-2000:]
    assert not (other / "left_over").exists() and (other / "summary.json").is_file()
    # The flag was for that once: a --config of the run's own file must not delete it.
    assert not read_config(other / "config.yaml").overwrite
    assert "already holds a run" in refused(warm().run("--config", other / "config.yaml"))
    assert tree(run) == before


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a tiny random pair on 30 rows; no test depends on what such a pair can do."""
    root = tmp_path_factory.mktemp("small")
    rows = small_rows(root)
    flags = [*small_pair(root), "--data.path", str(rows), "--prompts-per-step", "4", "--rollout.n", "2"]
    return [*flags, "--rollout.max-new-tokens", "8", "--threads", "1"]


def train(small: list[str], output: Path, *flags: str, name: str = "run") -> Path:
    assert main([*small, "--output-dir", str(output), "--name", name, *flags]) == 0
    return output / name


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_lines(run / "metrics.jsonl")[1:]]


@pytest.mark.parametrize("objective", ["reopold", "reverse_kl"])
def test_every_objective_trains_and_repeats(objective: str, small: list[str], tmp_path: Path) -> None:
    flags = ("--steps", "2", "--objective", objective)
    first, second = (train(small, tmp_path, *flags, name=name) for name in ("one", "two"))
    assert losses(first) == losses(second)
    assert tree(first / "student") == tree(second / "student")
    other = train(small, tmp_path, *flags, "--seed", "1", name="three")
    assert losses(first) != losses(other)


def test_micro_batches_do_not_change_the_result(small: list[str], tmp_path: Path) -> None:
    # Plain SGD would show the gradient itself; AdamW's first steps amplify rounding, so few steps and a tolerance.
    whole = train(small, tmp_path, "--steps", "2", name="whole")
    pieces = train(small, tmp_path, "--steps", "2", "--optim.rows-at-once", "2", name="pieces")
    assert losses(pieces) == pytest.approx(losses(whole), rel=1e-3)


def test_several_updates_a_batch_make_the_ratio_move(small: list[str], tmp_path: Path) -> None:
    run = train(small, tmp_path, "--steps", "2", "--optim.updates-per-batch", "2", "--optim.lr", "0.01")
    assert max(record["ratio/max"] for record in read_lines(run / "metrics.jsonl")[1:]) > 1.001


def test_frozen_vision_does_not_move(small: list[str], tmp_path: Path) -> None:
    run = train(small, tmp_path, "--steps", "1", "--student.freeze-vision", "--student.freeze-projector")
    before, after = (load_file(Path(path) / "model.safetensors") for path in (small[1], run / "student"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not [name for name in moved if "visual" in name]
    assert [name for name in before if "visual" in name]


def test_learning_rate_follows_the_schedule(small: list[str], tmp_path: Path) -> None:
    flags = ("--steps", "4", "--optim.lr", "0.001", "--optim.schedule", "linear", "--optim.warmup-updates", "2")
    rates = [record["optim/lr"] for record in read_lines(train(small, tmp_path, *flags) / "metrics.jsonl")[1:]]
    assert rates == pytest.approx([0.0, 0.0005, 0.001, 0.0005])  # what each step learned with


def broken_at(*steps: int) -> object:
    """REOPOLD whose signal is infinite at some steps."""
    original = Reopold.__call__

    def call(self: Reopold, batch: ScoredBatch, *, step: int) -> TokenSignal:
        signal = original(self, batch, step=step)
        return replace(signal, advantages=signal.advantages * math.inf) if step in steps else signal

    return call


def test_a_non_finite_step_is_skipped_and_counted(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reopold, "__call__", broken_at(1))
    run = train(small, tmp_path, "--steps", "3", "--save-every", "1", "--keep", "3")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["skipped"]["updates"] == 1 and summary["steps"] == 3
    records = read_lines(run / "metrics.jsonl")[1:]
    assert [record["optim/skipped"] for record in records] == [0, 1, 1]
    assert records[1]["loss"] is None and records[2]["loss"] is not None  # JSON has no infinity
    first, second, third = (
        load_file(run / "checkpoints" / f"step-{step:06d}" / "model.safetensors") for step in (1, 2, 3)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)


def test_several_non_finite_steps_end_the_run(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Reopold, "__call__", broken_at(1, 2, 3, 4))
    flags = ["--steps", "6", "--optim.max-bad-steps", "2", "--output-dir", str(tmp_path), "--name", "run"]
    assert main([*small, *flags]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "2 steps in a row had NaN rewards or lost updates" in last and "error: " in last


def test_a_teacher_that_turns_nan_ends_the_run(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = Asking.step

    def step(self: Asking, step: int, watch: Stopwatch) -> Asked:
        asked = sound(self, step, watch)
        return replace(asked, teacher=lambda: TeacherScores(asked.teacher().logprobs * math.nan))

    monkeypatch.setattr(Asking, "step", step)
    flags = ["--steps", "6", "--optim.max-bad-steps", "2", "--output-dir", str(tmp_path), "--name", "run"]
    assert main([*small, *flags]) == 1
    assert "2 steps in a row had NaN rewards" in capsys.readouterr().err
    records = read_lines(tmp_path / "run" / "metrics.jsonl")[1:]
    assert [record["reward/nan"] for record in records] == [1.0, 1.0]  # the step that ended it is in the log


def test_a_teacher_that_is_lost_costs_no_step(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = Asking.step

    def lost() -> TeacherScores:
        raise TeacherError("http://gpu-7:8765: connection refused (tried 9 times)")

    def step(self: Asking, step: int, watch: Stopwatch) -> Asked:
        asked = sound(self, step, watch)
        return replace(asked, teacher=lost) if step == 2 else asked

    flags = ["--steps", "3", "--save-every", "0", "--output-dir", str(tmp_path), "--name", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Asking, "step", step)
        assert main([*small, *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "connection refused" in last and last.endswith(f"--resume {tmp_path / 'run'}")
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert "resuming after step 2" in capsys.readouterr().out
    straight = train(small, tmp_path, "--steps", "3", "--save-every", "0", name="straight")
    ends = [load_file(run / "student" / "model.safetensors") for run in (tmp_path / "run", straight)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_gap_between_engine_and_trainer_is_logged(small: list[str], tmp_path: Path) -> None:
    run = train(small, tmp_path, "--steps", "1", "--student.compute", "bfloat16")
    assert 0 <= read_lines(run / "metrics.jsonl")[-1]["rollout/engine_gap"] < 0.5  # bf16 may round both alike


def test_a_few_steps_make_the_embedded_student_better(tmp_path: Path) -> None:
    flags = ["--steps", "8", "--objective.switch-step", "4", "--data.test-rows", "220", "--data.validation-rows", "0"]
    assert main([*flags, "--threads", "1", "--output-dir", str(tmp_path), "--name", "better"]) == 0
    accuracy = json.loads((tmp_path / "better" / "summary.json").read_text())["accuracy"]
    assert 0.3 < accuracy["before"] < 0.6 and accuracy["teacher"] > 0.9
    assert accuracy["after"] > 0.8  # measured: 0.52 before, about 0.9 after
