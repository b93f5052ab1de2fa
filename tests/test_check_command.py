"""`python -m reopold_vl.check`: a green screen for a good pair, and for each planted fault a red line that says what to
do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_check import Blind
from tiny import TEXTS, save_tiny

from reopold_vl import assemble_models
from reopold_vl.check import budget as budget_room
from reopold_vl.check import command, timing
from reopold_vl.check.__main__ import main, read
from reopold_vl.check.result import Report, Result
from reopold_vl.check.screen import plain, pretty, show
from reopold_vl.config import ConfigError
from reopold_vl.loop import train
from reopold_vl.presets import EMBEDDED
from reopold_vl.teachers.local import LocalTeacher

Found = dict[str, Result]
ROWS = ["--data.test-rows", "22", "--data.validation-rows", "0", "--prompts-per-step", "8"]
COMMON = ["--quick", "--threads", "1", "--rollout.max-new-tokens", "8", *ROWS]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pair")
    return {
        "student": save_tiny(root / "student", "qwen2_5_vl", seed=0),
        "teacher": save_tiny(root / "teacher", "qwen2_5_vl", seed=1, hidden=48),
    }


@pytest.fixture
def teacher(directories: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the good teacher for a test to spoil."""
    copy = tmp_path / "spoilt"
    copy.mkdir()
    for file in directories["teacher"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def run(student: Path, teacher: Path, tmp_path: Path, *flags: str) -> tuple[int, Found]:
    """The exit status and the results by name, as machines read them."""
    file = tmp_path / "report.json"
    status = main([str(student), str(teacher), *COMMON, "--json", str(file), *flags])
    report = json.loads(file.read_text())
    assert report["green"] == (status == 0)
    return status, {result["name"]: Result(**result) for result in report["results"]}


def assert_one_fault(found: Found, name: str, *words: str) -> None:
    """It is red by this name first, says so in these words, and tells what to do."""
    red = [result for result in found.values() if result.status == "fail"]
    assert red and red[0].name == name and red[0].advice
    assert all(word in f"{red[0]}" for word in words), red[0]


def test_a_good_pair_is_green(directories: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run(directories["student"], directories["teacher"], tmp_path)
    assert status == 0
    skipped = {name for name, result in found.items() if result.status != "ok"}
    assert skipped == {"answers end", "time"}  # left out by --quick
    screen = capsys.readouterr().out
    assert len(screen.splitlines()) < 24 and screen.rstrip().endswith("GREEN: 12 ok, 2 not made")


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_another_end_token(directories: dict[str, Path], teacher: Path, tmp_path: Path) -> None:
    edit(teacher / "generation_config.json", eos_token_id=0)
    status, found = run(directories["student"], teacher, tmp_path)
    assert status == 1
    assert_one_fault(found, "end tokens", "<|im_end|> for the student", "generation_config.json")


def test_an_end_token_that_the_template_never_writes(teacher: Path, tmp_path: Path) -> None:
    edit(teacher / "generation_config.json", eos_token_id=0)
    _, found = run(teacher, teacher, tmp_path)
    assert_one_fault(found, "turn end", "ends a turn with <|im_end|>, which ends no answer", "add id ")


def test_a_teacher_that_ignores_pixels(
    directories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_load = assemble_models.load_one

    def load_one(config: Any, model: Any) -> Any:
        loaded = plain_load(config, model)
        if model.path == str(directories["teacher"]):
            loaded.policy.model.base_model.visual = Blind(loaded.policy.model.base_model.visual)
        return loaded

    monkeypatch.setattr(assemble_models, "load_one", load_one)
    status, found = run(directories["student"], directories["teacher"], tmp_path)
    assert status == 1 and found["student sees"].status == "ok"
    assert_one_fault(found, "teacher sees", "does not see the image", "check its processor")


def test_other_image_limits(directories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_load = assemble_models.load_one

    def load_one(config: Any, model: Any) -> Any:
        limited = replace(config, images=replace(config.images, min_pixels=28 * 28, max_pixels=56 * 56))
        return plain_load(limited if model.path == str(directories["teacher"]) else config, model)

    monkeypatch.setattr(assemble_models, "load_one", load_one)
    status, found = run(directories["student"], directories["teacher"], tmp_path, "--images.min-pixels", "12544")
    assert status == 1
    assert_one_fault(found, "image tokens", "image grids differ", "--images.max-pixels")
    assert found["teacher sees"].status == "skip" and "image tokens first" in found["teacher sees"].measured


def test_another_tokenizer(directories: dict[str, Path], tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", "qwen2_5_vl", seed=1, texts=("zzzz zzz zz qqq", *TEXTS))
    status, found = run(directories["student"], other, tmp_path)
    assert status == 1
    assert_one_fault(found, "tokenizer", "tokenizers differ: id 2", "--teacher.align text")
    assert found["engine"].status == "skip"
    status, found = run(directories["student"], other, tmp_path, "--teacher.align", "text")
    assert status == 0 and "rewards are taken on spans of text" in found["tokenizer"].measured


TEMPLATES = {
    "no image": ("", "prompts", "none of 32 rows can be encoded"),
    "no question": ("<|vision_start|><|image_pad|><|vision_end|>", "chat template", "leaves out the question"),
    "not a template": ("{% for message in %}", "prompts", "the chat template cannot render it"),
    "a faulty expression": ("{{ 1 / 0 }}", "prompts", "the chat template cannot render it"),
}


@pytest.mark.parametrize("fault", TEMPLATES)
def test_a_broken_chat_template(fault: str, directories: dict[str, Path], teacher: Path, tmp_path: Path) -> None:
    text, name, words = TEMPLATES[fault]
    body = "{% for m in messages %}{% for part in m['content'] %}{{ part.get('text', '') }}{% endfor %}{% endfor %}"
    (teacher / "chat_template.jinja").write_text(body if fault == "no image" else text)
    status, found = run(teacher, teacher, tmp_path)
    assert status == 1
    assert_one_fault(found, name, words, "chat_template.jinja")


def test_too_large_for_memory_is_told_before_anything_is_loaded(
    directories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directories["student"] / "model.safetensors").rename(tmp_path / "away")
    monkeypatch.setattr(budget_room, "available_bytes", lambda device: 40 << 20)
    try:
        status, found = run(directories["student"], directories["teacher"], tmp_path, "--rollout.max-new-tokens", "999")
    finally:
        (tmp_path / "away").rename(directories["student"] / "model.safetensors")
    assert status == 1
    assert_one_fault(found, "memory", "of 40 MiB on cpu", "lower, in order: --optim.rows-at-once")
    assert "nothing was loaded" in found["all others"].measured


def test_training_refuses_what_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_room, "available_bytes", lambda device: 1 << 20)
    with pytest.raises(ConfigError, match=r"memory: about .* of 1 MiB on cpu.*; lower, in order: "):
        train(replace(EMBEDDED, output_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_time_of_the_embedded_run_is_told_within_a_factor_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(EMBEDDED.data, validation_rows=0, test_rows=11)
    config = replace(EMBEDDED, steps=3, eval_every=0, save_every=0, output_dir=tmp_path, data=data)
    told: list[timing.StepTime] = []
    plain_result = timing.time_result
    monkeypatch.setattr(
        timing, "time_result", lambda found, steps: (told.append(found), plain_result(found, steps=steps))[1]
    )
    report = command.check_run(config)
    assert report.green and re.search(r"a step \(rollout .* for 3 steps", plain(report))
    train(config)
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines][-2:]  # the first is slower than the others
    names = [f"seconds/{name}" for name in ("rollout", "score", "update")]
    measured = sum(step[name] for step in steps for name in names) / len(steps)
    assert measured / 3 < told[0].step < measured * 3, f"{told[0]} against {measured} s a step"


def test_lines_through_two_measurements() -> None:
    assert timing.line((4, 1.0), (16, 4.0)) == timing.Line(0.0, 0.25)
    assert timing.line((4, 2.0), (16, 2.0)) == timing.Line(2.0, 0.0)
    assert timing.line((4, 3.0), (16, 2.0)) == timing.Line(3.0, 0.0)  # noise
    assert timing.line((4, 2.0), (4, 2.0)).at(8) == 2.0


def test_a_run_is_the_sum_of_its_steps() -> None:
    line = timing.Line(1.0, 0.5)
    rates = timing.Rates(prefill=line, decode=line, scoring=line, gradient=line, prompt_tokens=10, tokens=10)
    settings = {"n": 2, "prompts_per_step": 4, "rollout_rows": 4, "learn_rows": 4, "longest_answer": 20, "steps": 3}
    found = timing.extrapolate(rates, answer_tokens=10, **settings)
    # Two chunks of two prompts: a prefill of 2 prompts, and 20 decoding steps with 2 of 4 rows alive.
    assert found.rollout == pytest.approx(2 * (2.0 + 20 * 2.0))
    assert found.scoring == found.gradient == pytest.approx(2 * 1.0 + 8 * 0.5)
    assert found.run == pytest.approx(3 * found.step)


@pytest.mark.parametrize(
    ("argv", "student", "rows"),
    [
        (["a", "b", "--data", "rows.jsonl"], "a", "rows.jsonl"),
        (["a", "b", "--data=rows.jsonl", "--max-pixels", "50176"], "a", "rows.jsonl"),
        (
            ["qwen2.5-vl-3b", "--student.path", "a", "--teacher.path", "b", "--data.path", "rows.jsonl"],
            "a",
            "rows.jsonl",
        ),
        (["qwen2.5-vl-3b", "a", "b", "--data", "rows.jsonl"], "a", "rows.jsonl"),
        ([], "zoo:student", None),
    ],
)
def test_the_forms_of_the_command(argv: list[str], student: str, rows: str | None) -> None:
    config, options = read([*argv, "--json", "x.json", "--quick"])
    assert config.student.path == student and config.data.path == rows
    assert options == {"--json": "x.json", "--quick": "yes"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a"], "unknown preset 'a'"),
        (["a", "b", "c"], "3 paths are given"),
        (["a", "b", "--dat", "x"], "unknown argument --dat"),
        (["--json"], "--json needs a value"),
        (["--compare-teacher="], "--compare-teacher needs a value"),
    ],
)
def test_bad_arguments_are_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_help_needs_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--compare-teacher PATH" in capsys.readouterr().out


def test_the_screen_says_in_words_and_in_colour_what_to_do() -> None:
    results = (
        Result("one", "ok", "fine"),
        Result("two", "fail", "bad", "mend it"),
        Result("three", "skip", "not tried"),
    )
    report = Report("a learns from b", results)
    assert not report.green and report.first_failure == results[1]
    text = plain(report)
    assert "FAIL  two    bad\n             -> mend it" in text and text.endswith("RED: 1 ok, 1 failed, 1 not made")
    from rich.console import Console

    console = Console(width=60, record=True, file=SimpleNamespace(write=lambda _: 0, flush=lambda: None))  # pyright: ignore[reportArgumentType]
    console.print(pretty(report))
    coloured = console.export_text()
    assert re.search(r"✘ +two +bad", coloured) and "→ mend it" in coloured and "RED" in coloured
    warned = Report("x", (Result("one", "warn", "so so", "look"),))
    assert warned.green and plain(warned).endswith("GREEN: 1 to look at")


def test_output_that_is_no_terminal_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    show(Report("title", (Result("one", "ok", "fine"),)))
    assert capsys.readouterr().out == "title\n\nok    one  fine\n\nGREEN: 1 ok\n"


def test_checks_leave_no_trace_in_the_weights() -> None:
    config = replace(EMBEDDED, threads=1)
    student = assemble_models.load_student(config)
    before = {name: tensor.clone() for name, tensor in student.policy.state_dict().items()}
    teacher = LocalTeacher(student, 16)
    prompts = [student.encoder(sample) for sample in command.load_splits(config).train[:2]]
    timing.measure(student, teacher, prompts, n=2, scored_again=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in student.policy.state_dict().items())


def test_a_server_is_compared_with_a_local_copy(directories: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    from serving_help import served
    from tiny import load_tiny

    with served(load_tiny(directories["teacher"])) as server:
        flags = ["--teacher.path", server.url]
        file = tmp_path / "report.json"
        arguments = ["--student.path", str(directories["student"]), *flags, *COMMON, "--json", str(file)]
        results = []
        for copy in ([], ["--compare-teacher", str(directories["teacher"])], ["--compare-teacher", arguments[1]]):
            status = main([*arguments, *copy])
            found = {result["name"]: Result(**result) for result in json.loads(file.read_text())["results"]}
            results.append((status, found["server"]))
    assert [(status, result.status) for status, result in results] == [(0, "skip"), (0, "ok"), (1, "fail")]
    assert "--compare-teacher PATH" in results[0][1].measured and "other weights" in results[2][1].advice
