"""From stored responses to figures and files: summaries, comparison, results.json, report.md, plots."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_help import ROOT, environment
from stored import response, write

from eval.benches import find_bench
from eval.config import EvalConfig, EvalError
from eval.finish import Answers, finish
from eval.rescore import stored_answers
from eval.results import finite
from eval.run import main
from eval.score import grade, pair, share, summarise
from eval.types import Graded, Response
from reopold_vl.report.stats import wilson_interval

BENCH = find_bench("embedded")


def mixed(model: str = "student", right: int = 6, total: int = 10) -> list[Response]:
    """`right` right answers of `total`; then an unparsed one, a truncated one and a failed input."""
    plain = [response(i, "Answer: 4" if i < right else "Answer: 5", model=model) for i in range(total)]
    return [
        *plain,
        response(total, "I do not know.", model=model),
        response(total + 1, "Well, the first step", finish_reason="length", model=model),
        response(total + 2, "", finish_reason="failed", error="no such file", model=model),
    ]


def graded(responses: list[Response]) -> list[Graded]:
    return grade(BENCH, responses, "strict")


def read_results(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_rates_are_counted_beside_the_accuracy() -> None:
    summary = summarise(BENCH, graded(mixed()), "strict")
    assert summary.accuracy is not None
    assert (summary.accuracy.value, summary.accuracy.answers) == (6 / 12, 12)
    assert summary.accuracy.interval == wilson_interval(6, 12)
    assert summary.accuracy.standard_error == pytest.approx(math.sqrt(0.25 / 11))
    assert (summary.unparsed, summary.truncated, summary.failed, summary.refusal) == (2, 1, 1, 0)
    assert (summary.rate("unparsed"), summary.rate("failed")) == (2 / 12, 1 / 13)
    parts = summary.breakdown["type"]
    assert list(parts) == ["even", "odd"] and sum(part.answers for part in parts.values()) == 12


def test_failed_inputs_alone_have_no_accuracy(tmp_path: Path) -> None:
    path = write(tmp_path, [response(1, "", finish_reason="failed", error="too long")])
    assert main(["--score", str(path)]) == 0
    results = read_results(tmp_path / "results.json")
    assert results["results"]["embedded"]["acc,none"] == "N/A"
    assert results["n-samples"]["embedded"] == {"original": 1, "effective": 0}
    assert "p1 (student): too long" in (tmp_path / "report.md").read_text()


def test_several_samples_are_a_mean_with_an_error_by_problem() -> None:
    texts = [["4", "4", "5", "5"], ["4", "4", "4", "4"], ["5", "5", "5", "5"], ["5", "5", "5", "4"]]
    responses = [
        response(number, f"Answer: {text}", sample=sample, key=f"{number}/{sample}")
        for number, row in enumerate(texts)
        for sample, text in enumerate(row)
    ]
    summary = summarise(BENCH, graded(responses), "strict")
    assert summary.samples == 4 and summary.accuracy is not None
    assert (summary.accuracy.value, summary.accuracy.problems, summary.accuracy.answers) == (7 / 16, 4, 16)
    low, high = summary.accuracy.interval
    apart = [text for row in texts for text in row]
    naive = share(graded([response(i, f"Answer: {text}", key=str(i)) for i, text in enumerate(apart)])).interval
    assert high - low > naive[1] - naive[0]  # answers to one problem are no independent evidence
    assert list(summary.pass_at) == [1, 2, 4]
    assert summary.pass_at[1] == pytest.approx(7 / 16) and summary.pass_at[4] == pytest.approx(3 / 4)
    assert summary.maj_at[4] == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_the_pair_is_compared_where_both_answered() -> None:
    ours, theirs = graded(mixed(right=4)), graded(mixed("teacher", right=8)[:-2])
    comparison, notes = pair(ours, theirs, seed=0)
    assert comparison is not None
    assert (comparison.problems, comparison.only_a, comparison.only_b) == (11, 0, 4)
    assert notes == ("2 answers have no counterpart at the other model and are not in the comparison",)
    assert comparison.retention is not None and comparison.retention.value == 4 / 8
    other = [response(0, model="teacher", prompt="In other words?")]
    assert pair(ours, graded(other), seed=0)[1][-1] == "1 problems were put to the two models in different words"
    assert pair(ours, [], seed=0)[0] is None


def run_pair(directory: Path) -> dict[str, Any]:
    write(directory, mixed())
    write(directory / "baseline", mixed("teacher", right=9))
    assert main(["--score", str(directory)]) == 0
    return read_results(directory / "results.json")


def test_results_have_the_layout_of_lmms_eval(tmp_path: Path) -> None:
    results = run_pair(tmp_path)
    task = results["results"]["embedded"]
    assert task["alias"] == "embedded"
    assert (task["acc,none"], task["unparsed_rate,none"]) == (0.5, 2 / 12)
    assert task["acc_stderr,none"] == pytest.approx(math.sqrt(0.25 / 11))
    for name in ("group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert list(results[name]) == ["embedded"]
    assert results["n-samples"]["embedded"] == {"original": 13, "effective": 12}
    assert {"task", "dataset_path", "generation_kwargs", "metric_list"} <= set(results["configs"]["embedded"])
    assert {"model", "model_args", "batch_size", "device", "limit", "gen_kwargs"} <= set(results["config"])
    answers = 12 * 5
    assert results["throughput"] == {"total_gen_tokens": answers, "total_elapsed_time": 6.0, "avg_speed": answers / 6}
    details = results["reopold_vl"]["benches"]["embedded"]
    assert details["headline"] == {"name": "accuracy", "value": task["acc,none"]}
    for name in ("git_hash", "date", "transformers_version", "total_evaluation_time_seconds", "model_name"):
        assert name in results
    # Every value of the task is a number, "N/A" or the alias, as readers of this layout expect.
    assert all(isinstance(value, int | float) or value == "N/A" for key, value in task.items() if key != "alias")
    ours = results["reopold_vl"]["benches"]["embedded"]
    assert ours["comparison"]["only_b"] == 3 and ours["accuracy"]["interval"] == list(wilson_interval(6, 12))
    baseline = read_results(tmp_path / "baseline" / "results.json")
    assert (baseline["model_name"], baseline["results"]["embedded"]["acc,none"]) == ("teacher", 9 / 12)


def test_only_dates_differ_between_two_scorings(tmp_path: Path) -> None:
    first, second = run_pair(tmp_path), run_pair(tmp_path)
    for name in ("date", "start_time", "end_time", "total_evaluation_time_seconds"):
        del first[name], second[name]
    assert first == second


def test_the_report_says_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_pair(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| embedded | student | 50.0 [25.4, 74.6] | 16.7% | 0.0% | 8.3% | 1 | 12 |" in report
    assert "-25.0 points" in report and "exact McNemar" in report and "retention 66.7%" in report
    assert "- p12 (student): no such file" in report and "| even |" in report
    assert "plots/accuracy.png" in report
    out = capsys.readouterr().out
    assert "teacher (baseline)" in out and "-25.0 points" in out
    for name in ("accuracy.png", "accuracy_embedded.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_names_from_data_cannot_break_report_or_plot(tmp_path: Path) -> None:
    responses = [response(i, model="a|b\n$x_{$") for i in range(4)]
    for number, item in enumerate(responses):
        item.problem.tags["type"] = (f"|{number % 2}| $\\frac{{ <b>",)  # pyright: ignore[reportIndexIssue]
    write(tmp_path, responses)
    assert main(["--score", str(tmp_path)]) == 0
    report = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "| embedded | a\\|b $x_{$ | 100.0 [51.0, 100.0] | 0.0% | 0.0% | 0.0% | 0 | 4 | 5 | 0.5 |" in report


def test_scores_need_no_torch_and_little_time(tmp_path: Path) -> None:
    write(tmp_path, mixed())
    program = f"""
import sys
from eval.run import main
assert main(["--score", {str(tmp_path)!r}]) == 0
print("HEAVY", *sorted({{"torch", "transformers", "datasets"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY"


@pytest.mark.parametrize("export", ["vlmevalkit"])
def test_exports_are_written_for_both_models(export: str, tmp_path: Path) -> None:
    write(tmp_path, mixed())
    write(tmp_path / "baseline", mixed("teacher"))
    assert main(["--score", str(tmp_path), "--export", export]) == 0
    for home in (tmp_path, tmp_path / "baseline"):
        assert (home / "export" / export / "embedded.tsv").stat().st_size > 100


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main([*map(str, argv)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_scored_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path, mixed())
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    junk = tmp_path / "junk.jsonl"
    junk.write_text("{}\n")
    two = write(tmp_path / "two", [response(1), response(2, model="teacher")])
    twice = write(tmp_path / "twice", [response(1), response(1, key="other settings")])
    (tmp_path / "none").mkdir()
    for argv, reason in (
        ([tmp_path / "missing"], "no such file or directory"),
        ([tmp_path / "none"], "the directory holds no responses_*.jsonl"),
        ([empty], "holds no responses"),
        ([junk], "1 lines that are none"),
        ([two], "more than one model: student, teacher"),
        ([twice], "answered twice"),
        ([good, write(tmp_path / "b", mixed()), write(tmp_path / "c", mixed())], "3 files of embedded"),
        ([good, "--scorer", "nearest"], "'--scorer'"),
        ([good, "--export", "mathvista"], "export mathvista is not for benchmark embedded"),
        ([good, "--export", "vlmeval"], "unknown export 'vlmeval' (did you mean vlmevalkit?)"),
    ):
        assert reason in refusal(capsys, "--score", *argv)


def test_two_files_are_a_pair_and_a_damaged_one_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write(tmp_path / "a", mixed()), write(tmp_path / "b", mixed("teacher", right=9))
    with one.open("ab") as file:
        file.write(b'{"bench": "emb')
    config = EvalConfig(score=(one, other))
    (answers,), directory, run = stored_answers(config)
    assert (answers.model[0].model, answers.baseline and answers.baseline[0].model) == ("student", "teacher")
    assert (directory, run) == (tmp_path / "a", {})
    assert "unfinished last line (14 bytes)" in capsys.readouterr().out
    assert one.read_bytes().endswith(b'{"bench": "emb')  # scoring reads and does not mend
    (outcome,) = finish([answers], config, directory, run=run, speed=None, seconds=0)
    assert outcome.comparison is not None and outcome.comparison.only_b == 3
    with pytest.raises(EvalError, match="more than one model"):
        stored_answers(EvalConfig(score=(write(tmp_path / "c", [*mixed(), *mixed("teacher")]),)))


def test_json_has_no_nan() -> None:
    assert finite({"a": [math.nan, 1.0, (math.inf,)], "b": "x"}) == {"a": [None, 1.0, [None]], "b": "x"}
    assert Answers(BENCH, []).baseline is None
