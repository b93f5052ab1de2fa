"""The conformance command, and the bars that the scorers must hold on real outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from eval.conformance import main, read_file, report

BARS = {
    "mathvista_dev.jsonl": 0.985,
    "mathvista_reasoning_dev.jsonl": 0.97,
    "mathvision_dev.jsonl": 0.975,
    "logicvista_dev.jsonl": 0.96,
    "tabmwp_dev.jsonl": 0.97,
}


def row(pid: str, response: str, **more: object) -> dict[str, object]:
    asked = {"question": "Which is it?", "choices": ["red", "blue"], "answer": "blue", "metadata": {}}
    kind = {"question_type": "multi_choice", "answer_type": "text", "unit": None, "precision": None}
    return {"pid": pid, "model": "toy", "response": response, **asked, **kind, **more}


def write(path: Path, rows: Sequence[object], extra: str = "") -> Path:
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows) + extra, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "bar"), BARS.items())
def test_bars_on_real_outputs(shared_dir: Path, name: str, bar: float) -> None:
    found = report(read_file(shared_dir / "conformance" / name), "official")
    assert found["bad_lines"] == 0
    assert found["grounded_agreement"] >= bar
    assert abs(found["accuracy"] - found["official_accuracy"]) <= 0.015
    assert abs(found["scorers"]["strict"]["accuracy"] - found["official_accuracy"]) <= 0.03


def test_counts_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row("1", "The answer is (B).\u2028Yes.", true_false=True, official_path="letter"),
        row("2", "The answer is (A).", true_false=True, true_false_current=False, official_path="letter"),
        row("3", "The answer is (B).", true_false=False, official_path="letter"),
        row("4", "I cannot see it.", true_false=True, official_path="levenshtein"),
    ]
    path = write(tmp_path / "mathvista_toy.jsonl", rows, extra="{broken\n\n[1]\n")
    out = tmp_path / "out.json"
    assert main([str(path), "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["mathvista_toy.jsonl"]
    assert (found["rows"], found["grounded_rows"], found["bad_lines"]) == (4, 3, 2)
    assert found["grounded_agreement"] == pytest.approx(2 / 3)
    assert found["official_accuracy"] == pytest.approx(2 / 4)
    assert found["confusion"] == {"false_right": {"cue / letter": 1}, "false_wrong": {"refusal / levenshtein": 1}}
    assert found["scorers"]["strict"]["refusal"] == pytest.approx(1 / 4)
    shown = capsys.readouterr().out
    assert "mathvista_toy.jsonl" in shown and "bad line 5" in shown and "bad line 7" in shown


def test_scorer_option_and_files_without_verdicts(tmp_path: Path) -> None:
    path = write(tmp_path / "mathvista_x.jsonl", [row("1", "blue"), row("2", "I cannot see it.")])
    out = tmp_path / "out.json"
    assert main([str(path), "--scorer", "strict", "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["mathvista_x.jsonl"]
    assert (found["scorer"], found["accuracy"], found["agreement"]) == ("strict", 0.5, None)


def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name / "mathvista_x.jsonl" for name in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        write(path, [row("1", "blue")])
    out = tmp_path / "out.json"
    assert main([*map(str, paths), "--json", str(out)]) == 0
    assert len(json.loads(out.read_text(encoding="utf-8"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other_dev.jsonl", "{}\n", "must begin with one of mathvista"),
        ("mathvista_dev.jsonl", "", "no row could be read (empty file)"),
        ("mathvista_dev.jsonl", "{}\n", "response must be a text"),
        ("mathvista_missing.jsonl", None, "no such file"),
    ],
)
def test_bad_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main([str(path)]) == 2
    assert message in capsys.readouterr().err
