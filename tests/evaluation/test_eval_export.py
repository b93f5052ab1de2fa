"""Exports come back as they went, read by the programs they are for, and follow the official rules."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.benches import find_bench
from eval.export import EXPORTERS, ExportError
from eval.export.mathvista import normalised
from eval.types import Graded, Problem, Response, Verdict

NASTY = [
    'line one\nline "two"\r\nafter a tab:\tthree',
    "\u2028 and \u2029, \x85, \x0b and \x0c are no line ends; 答案是 (B)，共 3 个",
    'a,b;c\\n \\ \' "" "quoted" \ttab at the end\t',
    " leading blank, trailing carriage return\r",
    "\\boxed{\\frac{1}{2}} 🙂 \ud83d lone surrogate",
]
CHOICES = ("3/11", "8/11", "6/11\t!", "3/5")


def problem(bench: str, name: str) -> Problem:
    extra: dict[str, Any] = {"level": 2, "subject": "algebra"}
    if bench == "mathvista":
        extra = {"question_type": "multi_choice", "metadata": {"task": "math word problem", "skills": ["a", "b"]}}
    if bench == "mathverse":
        extra = {"sample_index": name, "problem_version": "Text Lite", "metadata": {"subject": "Plane Geometry"}}
    question = f'What "fraction"\tis blue?\n第{name}'
    return Problem(name, question, "8/11", "choice", CHOICES, unit="", extra=extra)


def graded(bench: str, texts: list[str], *, sample: int = 0) -> list[Graded]:
    return [
        Graded(
            Response(bench, "org/model", problem(bench, str(index)), sample, "key", "prompt", text, "stop"),
            Verdict("B", "rule", True) if index % 2 else Verdict(None, "rule", False, "unparsed"),
        )
        for index, text in enumerate(texts)
    ]


PAIRS = [
    ("mathvista", "mathvista", "response"),
    ("vlmevalkit", "mathvista", "prediction"),
    ("vlmevalkit", "embedded", "prediction"),
    ("mathv", "mathvision", "response"),
    ("mathverse", "mathverse", "model_answer"),
]


def utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


@pytest.mark.parametrize(("name", "bench", "column"), PAIRS)
def test_nasty_texts_come_back(name: str, bench: str, column: str, tmp_path: Path) -> None:
    exporter = EXPORTERS[name]
    path = exporter.path(tmp_path, bench)
    exporter.write(graded(bench, NASTY), path)
    assert [row[column] for row in exporter.read(path)] == [utf8(text) for text in NASTY]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize(("name", "bench", "column"), PAIRS)
@given(texts=st.lists(st.text(alphabet=st.characters(exclude_characters="\0")), min_size=1, max_size=4))
def test_any_text_comes_back(name: str, bench: str, column: str, texts: list[str], tmp_path: Path) -> None:
    EXPORTERS[name].write(graded(bench, texts), tmp_path / "file")
    assert [row[column] for row in EXPORTERS[name].read(tmp_path / "file")] == [utf8(text) for text in texts]


def test_vlmevalkit_is_what_pandas_reads(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "mathvista.tsv"
    EXPORTERS["vlmevalkit"].write(graded("mathvista", [*NASTY, "a\0b"]), path)
    table = pandas.read_csv(path, sep="\t")
    assert list(table["prediction"]) == [*map(utf8, NASTY), "a\ufffdb"]
    assert list(table.columns[:2]) == ["index", "question"] and table.columns[-1] == "prediction"
    first = table.iloc[0]
    assert first["question"] == problem("mathvista", "0").question
    assert (first["A"], first["answer"], first["answer_option"]) == ("3/11", "8/11", "B")
    assert (first["task"], first["skills"], first["choices"]) == (
        "math word problem",
        "['a', 'b']",
        repr(list(CHOICES)),
    )


def test_vlmevalkit_gold_is_a_letter_where_it_expects_one(tmp_path: Path) -> None:
    EXPORTERS["vlmevalkit"].write(graded("ai2d", ["B"]), tmp_path / "t.tsv")
    assert EXPORTERS["vlmevalkit"].read(tmp_path / "t.tsv")[0]["answer"] == "B"


def test_vlmevalkit_holds_answers_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    text = "long " * 50_000
    EXPORTERS["vlmevalkit"].write(graded("custom", [text]), tmp_path / "t.tsv")
    assert EXPORTERS["vlmevalkit"].read(tmp_path / "t.tsv")[0]["prediction"] == text


def test_mathvista_file_has_what_the_official_program_reads(tmp_path: Path) -> None:
    notes = EXPORTERS["mathvista"].write(graded("mathvista", ["", "The answer is (B)."]), tmp_path / "o.json")
    content = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert list(content) == ["0", "1"]
    right = content["1"]
    assert (right["extraction"], right["prediction"], right["true_false"]) == ("B", "8/11", True)
    assert right["choices"] == list(CHOICES) and right["unit"] is None and right["precision"] is None
    assert right["question_type"] == "multi_choice" and right["metadata"]["skills"] == ["a", "b"]
    assert content["0"]["extraction"] == "" and content["0"]["true_false"] is False
    assert notes == []  # "" is nearest to the shortest option, which is wrong too


@pytest.mark.parametrize(
    ("kind", "precision", "extraction", "expected"),
    [
        ("integer", None, "7.9", ("7.9", "7")),
        ("integer", None, "1,200", ("1200", "1200")),
        ("integer", None, "many", ("many", None)),
        ("integer", None, "", ("", None)),
        ("float", 1, "2.55 cm", ("2.55", "2.5")),
        ("float", 2, "3", ("3.0", "3.0")),
        ("list", None, "[1, 2]", ("[1, 2]", "[1, 2]")),
    ],
)
def test_mathvista_numbers_are_normalised_as_the_official_rule_does(
    kind: Any, precision: int | None, extraction: str, expected: tuple[str, str | None]
) -> None:
    assert normalised(Problem("p", "?", "7", kind, precision=precision), extraction, False) == expected


def test_mathvista_options_that_are_letters_out_of_order() -> None:
    item = Problem("p", "?", "A", "choice", ("C", "A", "B"))
    assert normalised(item, "B", True) == ("B", "A")  # the letter at whose place stands the right option
    assert normalised(item, "A", True) == ("B", "A")  # the right option's text
    assert normalised(item, "(B)", True) == ("B", "A")
    assert normalised(item, "nothing like it", False)[1] in item.choices


def test_mathvista_rule_agrees_with_the_published_predictions(shared_dir: Path) -> None:
    path = shared_dir / "conformance" / "mathvista_dev.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the shared files")
    read = find_bench("mathvista").read
    same = total = 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            problem = read(row)
            extraction = row["extraction"] if isinstance(row["extraction"], str) else str(row["extraction"])
            _, prediction = normalised(problem, extraction, bool(row["true_false_current"]))
            # Where an extraction is no bare number ("5 cm") the official rule finds nothing, ours the number.
            if prediction is None or row["prediction_current"] is not None:
                total += 1
                same += prediction == row["prediction_current"]
    assert total > 1000
    assert same / total > 0.995, f"{same} of {total}"


@pytest.mark.parametrize(
    ("name", "bench", "allowed"),
    [("mathvista", "mathverse", "mathvista"), ("mathv", "mathvista", "mathvision"), ("mathverse", "ai2d", "mathverse")],
)
def test_the_wrong_benchmark_is_named_with_those_allowed(name: str, bench: str, allowed: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{name} is not for benchmark {bench}: allowed is {allowed}"):
        EXPORTERS[name].write(graded(bench, ["x"]), tmp_path / "file")
    assert not (tmp_path / "file").exists()
    EXPORTERS["vlmevalkit"].check(bench)


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    exporter = EXPORTERS["mathv"]
    items = graded("mathvision", ["a", "b"])
    failed = dataclasses.replace(items[0], verdict=None)
    notes = exporter.write([failed, items[1], *graded("mathvision", ["c", "d"], sample=1)], tmp_path / "file")
    assert len(notes) == 2 and "2 further samples" in notes[0] and "1 problems that could not be shown" in notes[1]
    assert [row["response"] for row in exporter.read(tmp_path / "file")] == ["a", "b"]
    with pytest.raises(ExportError, match="no answers"):
        exporter.write([], tmp_path / "none")
    with pytest.raises(ExportError, match="'0' has several answers"):
        exporter.write([items[0], items[0]], tmp_path / "twice")


@pytest.mark.parametrize(("gold", "said"), [("five", True), ("eight eighths", False)])
def test_rows_on_which_the_official_program_decides_otherwise_are_counted(
    gold: str, said: bool, tmp_path: Path
) -> None:
    """To nothing the shortest option is nearest: the official rule calls a refusal right where that is the gold."""
    item = graded("mathvista", ["I cannot tell."])[0]
    question = Problem("p", "?", gold, "choice", ("eight eighths", "five", "six sixths"))
    refusal = Graded(dataclasses.replace(item.response, problem=question), Verdict(None, "r", False, "refusal"))
    notes = EXPORTERS["mathvista"].write([refusal], tmp_path / "o.json")
    assert [("decides otherwise" in note) for note in notes] == [True] * said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mathvista", "[]"),
        ("mathvista", '{"1": {"response": "x"}}'),
        ("mathverse", "{}"),
        ("mathverse", "[{}]"),
        ("mathv", '{"id": "1"}\n'),
        ("vlmevalkit", "index\tquestion\n"),
        ("vlmevalkit", '"index"\t"question"\t"answer"\t"prediction"\n"1"\n'),
        ("mathv", "no json"),
    ],
)
def test_files_of_another_form_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=f"not a file of export {name}"):
        EXPORTERS[name].read(tmp_path / "file")


def test_a_tsv_is_read_from_its_bytes(tmp_path: Path) -> None:
    """A reader with universal newlines would turn the carriage returns of answers into line feeds."""
    path = tmp_path / "t.tsv"
    EXPORTERS["vlmevalkit"].write(graded("custom", ["a\r\nb\rc"]), path)
    assert EXPORTERS["vlmevalkit"].read(path)[0]["prediction"] == "a\r\nb\rc"
    assert io.TextIOWrapper(path.open("rb"), encoding="utf-8", newline="").read().count("\r") == 2
