"""The accuracy as an `evaluate` metric: columns, batches, combination, loading by path, errors; no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

evaluate = pytest.importorskip("evaluate")

from eval.metric import VisualReasoningAccuracy  # noqa: E402
from reopold_vl.report.stats import wilson_interval  # noqa: E402

PREDICTIONS = ["The answer is (B).", "So x = 7.", "Sorry, I can't help with that.", ""]
REFERENCES = ["42", "7", "plum", "yes"]
CHOICES = [["41", "42"], [], ["plum", "pear"], None]


@pytest.fixture
def metric(tmp_path: Path) -> VisualReasoningAccuracy:
    return VisualReasoningAccuracy(cache_dir=str(tmp_path))


def figures_of(metric: VisualReasoningAccuracy, **rows: Any) -> dict[str, Any]:
    figures = metric.compute(**rows)
    assert figures is not None  # that is for the other processes of a distributed run
    return figures


def test_accuracy_with_its_failures_and_interval(metric: VisualReasoningAccuracy) -> None:
    figures = figures_of(metric, predictions=PREDICTIONS, references=REFERENCES, choices=CHOICES)
    low, high = wilson_interval(2, 4)
    assert figures == {"accuracy": 0.5, "unparsed": 0.25, "refusals": 0.25, "total": 4, "interval": [low, high]}


def test_official_takes_the_nearest_option(metric: VisualReasoningAccuracy) -> None:
    rows: dict[str, Any] = {"predictions": ["something like a plumm"], "references": ["plum"]}
    rows["choices"] = [["plum", "watermelon"]]
    refused = {**rows, "predictions": ["Sorry, I can't help with that."]}
    assert figures_of(metric, **refused)["accuracy"] == 0.0
    assert figures_of(metric, **refused, scorer="official")["accuracy"] in (0.0, 1.0)  # by luck, as published
    assert figures_of(metric, **{**rows, "predictions": ["B"]}, scorer="official")["accuracy"] == 0.0
    seven = {"predictions": ["7.9"], "references": ["7"]}
    assert figures_of(metric, **seven, scorer="official")["accuracy"] == 1.0  # truncated
    assert figures_of(metric, **seven)["accuracy"] == 0.0


def test_kinds_overrule_what_gold_looks_like(metric: VisualReasoningAccuracy) -> None:
    rows: dict[str, Any] = {"predictions": ["3.14"], "references": ["3.1416"]}
    assert figures_of(metric, **rows)["accuracy"] == 0.0
    assert figures_of(metric, predictions=["[2, 1]"], references=["[1, 2]"], kinds=["list"])["accuracy"] == 0.0
    assert figures_of(metric, predictions=["[1,2]"], references=["[1, 2]"], kinds=["list"])["accuracy"] == 1.0


def test_batches_with_references_that_carry_their_options(metric: VisualReasoningAccuracy) -> None:
    gold = {"answer": "pear", "choices": ["plum", "pear"], "kind": ""}
    metric.add_batch(predictions=["B", "A"], references=[gold, gold])
    metric.add(prediction="no", reference={"answer": "no", "choices": [], "kind": "yes_no"})
    figures = figures_of(metric)
    assert figures["total"] == 3 and figures["accuracy"] == pytest.approx(2 / 3)
    metric.add_batch(predictions=["3"], references=["3"])
    metric.add_batch(predictions=["4"], references=["3"])
    assert figures_of(metric, scorer="official")["accuracy"] == 0.5


def test_combine_and_load_by_path(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "eval" / "metric.py"
    loaded = evaluate.load(str(path), cache_dir=str(tmp_path))
    assert loaded.compute(predictions=["\\boxed{3}"], references=["3"])["accuracy"] == 1.0
    both = evaluate.combine({"ours": VisualReasoningAccuracy(cache_dir=str(tmp_path / "b")), "again": loaded})
    both.add_batch(predictions=["3", "4"], references=["3", "3"])
    figures = both.compute()
    assert figures["ours_accuracy"] == figures["again_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"predictions": [], "references": []}, "no predictions or no references"),
        ({"predictions": ["1"], "references": ["1", "2"]}, "Mismatch in the number of predictions"),
        ({"predictions": ["1"], "references": [" "]}, "reference 0 is empty"),
        ({"predictions": ["1"], "references": ["1"], "choices": []}, "choices has 0 rows, predictions have 1"),
        ({"predictions": ["1"], "references": ["1"], "kinds": ["word"]}, "kind 'word' of row 0 must be ''"),
        ({"predictions": ["1"], "references": ["1"], "scorer": "lenient"}, "scorer 'lenient' must be one of strict"),
    ],
)
def test_bad_input_is_one_clear_line(metric: VisualReasoningAccuracy, rows: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric.compute(**rows)
