"""The command: arguments, a whole run, what is killed and goes on, notes and messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_help import ROOT, environment

from eval.benches import BENCHES
from eval.config import EvalConfig, EvalError, parse
from eval.responses import read_responses
from eval.run import main
from eval.types import Response

SMALL = ("--limit", "22", "--device", "cpu", "--threads", "1")


def start(*args: object) -> subprocess.Popen[str]:
    """`python -m eval.run args` in a fresh interpreter."""
    command = [sys.executable, "-m", "eval.run", *map(str, args)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(directory: Path, *args: object) -> dict[str, Any]:
    """A run in this process; results.json."""
    assert main([*SMALL, "--output-dir", str(directory), *map(str, args)]) == 0
    return json.loads((directory / "results.json").read_text(encoding="utf-8"))


def stored(directory: Path) -> list[Response]:
    return list(read_responses(directory / "responses_embedded.jsonl").responses)


def answers(responses: list[Response]) -> list[tuple[str, int, str, int]]:
    return [(item.problem.id, item.sample, item.text, item.tokens) for item in responses]


def refused(*argv: str) -> str:
    with pytest.raises(EvalError) as caught:
        parse(list(argv))
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("--bnech", "mathvista"), "unknown argument --bnech (did you mean --bench?)"),
        (("--limit", "0"), "limit is 0: allowed is 1 or more"),
        (("--limit", "many"), "limit is many: allowed is a whole number or None"),
        (("--n", "4"), "n is 4: allowed is 1 at temperature 0"),
        (("--temperature", "-1"), "temperature is -1.0: allowed is 0 or more"),
        (("--top-p", "0"), "top_p is 0.0: allowed is above 0 and at most 1"),
        (("--scorer", "lenient"), "Expected one of ('strict', 'official')"),
        (("--bench", ","), "bench is ','"),
        (("--judge", "localhost:80", "--judge-model", "m"), "judge is localhost:80: allowed is an address such as"),
        (("--judge", "http://localhost"), "judge_model is None: allowed is the name of a model"),
        (("--min-pixels", "9", "--max-pixels", "8"), "min_pixels is 9: allowed is 1 to max_pixels"),
    ],
)
def test_bad_arguments_are_one_line(argv: tuple[str, ...], reason: str) -> None:
    assert reason in refused(*argv)


def test_defaults_are_the_embedded_pair() -> None:
    config = parse([])
    assert (config.benches, config.model_path, config.baseline_path) == (("embedded",), "zoo:student", "zoo:teacher")
    assert (config.directory, config.torch_threads, config.trust_remote_code) == (Path("evals/zoo-student"), 1, False)
    own = parse(["--bench", "mathvista, mathverse", "--model", "runs/a b/student"])
    assert (own.benches, own.baseline_path, own.torch_threads) == (("mathvista", "mathverse"), None, None)
    assert own.directory == Path("evals/runs-a-b-student")
    assert parse(["--baseline", "none"]).baseline_path is None
    assert not parse(["--no-resume"]).resume and not parse(["--no-speed"]).speed


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("--bench", "mathvsita"), "did you mean mathvista"),
        (("--prompt", "qeury"), "unknown prompt of embedded 'qeury' (did you mean query?)"),
        (("--split", "train"), "train"),
        (("--model", "no/such/place"), "no/such/place"),
        (("--model", "zoo:pupil"), "zoo:student and zoo:teacher"),
        (("--export", "mathverse"), "export mathverse is not for benchmark embedded"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    argv: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output-dir", str(tmp_path / "out"), *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and reason in line
    assert not (tmp_path / "out").exists()


def test_the_list_tells_of_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    for bench in BENCHES.values():
        assert f"{bench.name}: {bench.title}" in out and bench.licence in out
    assert "answers are hidden: test" in out and "AI4Math/MathVista" in out


def test_help_and_list_wait_for_no_torch() -> None:
    program = """
import sys
from eval.run import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code
print("HEAVY", *sorted({"torch", "transformers", "datasets", "matplotlib", "PIL"} & set(sys.modules)))
"""
    for flag in ("--help", "--list"):
        command = [sys.executable, "-c", program, flag]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment())
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "HEAVY"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the embedded pair on two problems of each type, speed left out."""
    directory = tmp_path_factory.mktemp("straight")
    run(directory, "--no-speed", "--batch-size", "4")
    return directory


def test_a_whole_run(straight: Path) -> None:
    results = json.loads((straight / "results.json").read_text())
    ours, theirs = (
        results["reopold_vl"]["benches"]["embedded"]
        for results in (results, json.loads((straight / "baseline" / "results.json").read_text()))
    )
    assert ours["accuracy"]["problems"] == theirs["accuracy"]["problems"] == 22
    assert ours["accuracy"]["value"] < theirs["accuracy"]["value"]
    assert ours["comparison"]["difference"] == pytest.approx(ours["accuracy"]["value"] - theirs["accuracy"]["value"])
    config = results["configs"]["embedded"]
    assert (config["test_split"], config["generation_kwargs"]["do_sample"]) == ("test", False)
    assert len(set(answers(stored(straight)))) == 22
    assert [item.problem.id for item in stored(straight)] == [item.problem.id for item in stored(straight / "baseline")]
    assert {"report.md", "run.json", "plots"} <= {path.name for path in straight.iterdir()}


def test_killed_and_resumed_is_straight(straight: Path, tmp_path: Path) -> None:
    process = start(*SMALL, "--output-dir", tmp_path, "--no-speed", "--batch-size", "4")
    path = tmp_path / "responses_embedded.jsonl"
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = read_responses(path).responses
    assert 4 <= len(kept) <= 22 and not (tmp_path / "results.json").exists()
    with path.open("ab") as file:
        file.write(b'{"bench": "embedded", "mod')  # as if a write had been cut
    run(tmp_path, "--no-speed", "--batch-size", "4")
    for part in ("", "baseline"):
        assert answers(stored(tmp_path / part)) == answers(stored(straight / part))


def test_a_finished_run_is_taken_up_without_a_model(
    straight: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("eval.tasks.load_model", lambda *args, **settings: pytest.fail("loaded a model"))
    run(straight, "--no-speed", "--batch-size", "4")
    assert "22 of 22 answers were stored already" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(*SMALL[2:], "--limit", "2200", "--output-dir", tmp_path, "--no-speed", "--batch-size", "8")
    path = tmp_path / "responses_embedded.jsonl"
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    last = said.splitlines()[-1]
    assert last.startswith("stopped by SIGINT: all finished batches are stored; go on with  python -m eval.run ")
    assert "Traceback" not in said and f"--output-dir {tmp_path}" in last
    assert not read_responses(path).damaged


def test_other_settings_do_not_reuse_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = ("--no-speed", "--baseline", "none", "--limit", "4")
    run(tmp_path, *alone)
    greedy = answers(stored(tmp_path))
    results = run(tmp_path, *alone, "--temperature", "1", "--n", "4", "--max-new-tokens", "40")
    said = capsys.readouterr().out
    assert "4 stored responses are to other problems or of other settings or another model; not used" in said
    assert "pass@4" in said and "maj@2" in said
    assert len(stored(tmp_path)) == 16
    assert results["n-samples"]["embedded"] == {"original": 4, "effective": 4}
    assert {"pass@1,none", "pass@4,none", "maj@4,none"} <= set(results["results"]["embedded"])
    assert results["configs"]["embedded"]["repeats"] == 4
    run(tmp_path, *alone)
    assert "4 of 4 answers were stored already" in capsys.readouterr().out
    assert answers(stored(tmp_path)) == greedy


def test_starting_over_forgets_what_was_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = ("--no-speed", "--baseline", "none", "--limit", "3")
    run(tmp_path, *alone)
    run(tmp_path, *alone, "--no-resume")
    assert "stored already" not in capsys.readouterr().out
    assert len(stored(tmp_path)) == 3


def test_the_same_model_twice_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(tmp_path, "--no-speed", "--limit", "3", "--model", "zoo:student", "--baseline", "zoo:student")
    assert "note: model and baseline are the same (zoo:student)" in capsys.readouterr().out
    assert results["reopold_vl"]["benches"]["embedded"]["comparison"]["difference"] == 0


def test_speed_is_measured_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--limit", "4", "--speed-problems", "2", "--batch-size", "2", "--max-new-tokens", "8")
    speed = run(tmp_path, *few)["reopold_vl"]["speed"]
    assert set(speed["speed_ups"]["fixed_length"]) == {"1", "2"} and speed["student"]["model"] == "zoo:student"
    assert "speed-up at matched accuracy" in capsys.readouterr().out
    assert (tmp_path / "plots" / "accuracy_time.png").exists()
    assert run(tmp_path, *few)["reopold_vl"]["speed"] == speed
    assert "speed: as measured before" in capsys.readouterr().out
    assert main(["--score", str(tmp_path)]) == 0
    assert "## Speed" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "results.json").read_text())["reopold_vl"]["speed"] == speed


def test_config_is_checked_in_python_as_well() -> None:
    with pytest.raises(EvalError, match="batch_size"):
        EvalConfig(batch_size=0)
