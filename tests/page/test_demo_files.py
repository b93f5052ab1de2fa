"""Evaluations and training runs on disk: shown as they are, and nothing outside of the named directories is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from demo_helpers import ROLLOUT, TEXTS, store_evaluation

from demo import benchmark, run_view
from demo.errors import DemoError
from demo.places import Places
from demo.service import Service
from demo.views.benchmark import evaluation_view, item_view
from demo.views.run import run_page
from reopold_vl.zoo.task import problem


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    return store_evaluation(tmp_path / "evals" / "one")


def test_an_evaluation_with_filters_and_pictures(evaluated: Path) -> None:
    places = Places.of([evaluated.parent])
    assert places.evaluations() == [str(evaluated)]
    assert benchmark.benches_in(evaluated) == ["embedded"]
    loaded = benchmark.load(evaluated, "embedded", places)
    gold = [problem("test", number).sample.answer for number in TEXTS]
    assert gold == ["3", "circle", "0", "2", "row 3, column 3"]
    counts = {name: len(benchmark.picked(loaded, name)) for name in benchmark.FILTERS}
    assert counts == {
        "all": 5, "student wrong, teacher right": 1, "student right, teacher wrong": 1, "both wrong": 2,
        "both right": 1, "no answer recognised": 1, "cut off": 1, "failed inputs": 1,
    }  # fmt: skip
    (item,) = benchmark.picked(loaded, "student wrong, teacher right")
    images = benchmark.images_of(loaded, item, places)
    assert images[0].tobytes() == problem("test", 1).sample.images[0].tobytes()
    shown = item_view(item, 1, 1, images)
    assert "Gold answer: <strong>circle</strong>" in shown and shown.count("data:image/png") == 1
    figures = evaluation_view(loaded)
    assert "50.0" in figures and "small" in figures and "By type" in figures and "<svg" in figures


def test_an_evaluation_is_read_again_when_it_grew(evaluated: Path) -> None:
    places = Places.of([evaluated])
    assert len(benchmark.load(evaluated, "embedded", places).items) == 5
    with (evaluated / "responses_embedded.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    again = benchmark.load(evaluated, "embedded", places)
    assert len(again.items) == 5 and "1 broken lines" in again.notes[0] and str(evaluated) not in again.notes[0]


def test_foreign_text_in_responses_is_text(evaluated: Path) -> None:
    loaded = benchmark.load(evaluated, "embedded", Places.of([evaluated]))
    shown = "".join(item_view(item, 1, 5, ()) for item in loaded.items)
    assert "<script" not in shown and "&lt;script&gt;" in shown and "too large" in shown


def test_an_evaluation_without_a_baseline(evaluated: Path) -> None:
    (evaluated / "baseline" / "responses_embedded.jsonl").unlink()
    loaded = benchmark.load(evaluated, "embedded", Places.of([evaluated]))
    assert loaded.baseline is None and len(benchmark.picked(loaded, "student wrong, teacher right")) == 0
    as_json = benchmark.as_json(loaded, "all", 2)
    assert as_json["items"] == 5 and as_json["item"]["answers"][0]["correct"] is False
    assert benchmark.as_json(loaded, "all", 99)["item"] is None
    assert "student" in evaluation_view(loaded)


def test_what_cannot_be_used_is_one_line(evaluated: Path) -> None:
    places = Places.of([evaluated])
    loaded = benchmark.load(evaluated, "embedded", places)
    with pytest.raises(DemoError, match="filter 'x': allowed are all"):
        benchmark.picked(loaded, "x")
    with pytest.raises(DemoError, match="benchmark 'chess': found are embedded"):
        benchmark.load(evaluated, "chess", places)
    (evaluated / "responses_mathvista.jsonl").write_text("")
    with pytest.raises(DemoError, match="holds no response"):
        benchmark.load(evaluated, "mathvista", places)


def test_only_named_directories_are_open(evaluated: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "metrics.jsonl").write_text('{"step": 0}\n')
    (secret / "responses_embedded.jsonl").write_text("")
    root = tmp_path / "open"
    root.mkdir()
    (root / "link").symlink_to(secret)
    places = Places.of([root])
    assert places.training_runs() == [] and places.evaluations() == []
    for name in (str(secret), str(root / "link"), str(root / ".." / "secret"), "", None, 3):
        with pytest.raises(DemoError, match="is not one of those found"):
            places.open(name, places.training_runs())
    with pytest.raises(DemoError, match="outside of the directories"):
        places.open(str(secret), [str(secret)])
    (root / "run").mkdir()
    (root / "run" / "metrics.jsonl").symlink_to(secret / "metrics.jsonl")
    with pytest.raises(DemoError, match="outside of the directories"):
        run_view.load(root / "run", places)


def test_a_run_while_it_trains(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    places = Places.of([tmp_path / "runs"])
    assert places.training_runs() == []
    (run / "metrics.jsonl").write_text('{"step": 0, "validation/accuracy": 0.5}\n{"step": 1, "reward/mean": nul')
    assert places.training_runs() == [str(run)]
    begun = run_view.load(run, places)
    assert begun.last("validation/accuracy") == 0.5 and "in progress" in run_page(begun)
    (run / "metrics.jsonl").write_text(
        '{"step": 0, "validation/accuracy": 0.5}\n{"step": 1, "reward/mean": null, "reopold/phase": 1.0}\n'
    )
    (run / "sample_rollouts.jsonl").write_text(json.dumps(ROLLOUT) + "\n" + json.dumps({"step": 3}) + "\n")
    (run / "summary.json").write_text('{"accuracy": {"before": 0.5, "after": 0.75}}')
    finished = run_view.load(run, places)
    page = run_page(finished)
    assert "finished" in page and "75.0" in page and "refinement" in page
    assert len(finished.rollouts) == 1 and "onerror" not in page and "<i>" not in page and "<b>" not in page
    assert page.count("<img") == 1 and "∎" in page
    assert json.dumps(run_view.as_json(finished), allow_nan=False)


def test_a_broken_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{broken\n{}\n")
    with pytest.raises(DemoError, match="line 1") as caught:
        run_view.load(tmp_path, Places.of([tmp_path]))
    assert str(tmp_path) not in str(caught.value)
    assert run_page(run_view.TrainingRun(tmp_path, ())).count("has not logged a step") == 1


def test_a_run_is_read_again_only_when_it_changed(service: Service, readable: Path, tmp_path: Path) -> None:
    gradio = pytest.importorskip("gradio", reason="the demo's page needs gradio: pip install -e '.[demo]'")
    from demo.lab_page import Lab

    lab = Lab(service)
    page, _, stamp = lab.run(str(readable / "run"), "")
    assert "step" in page and stamp
    assert lab.run(str(readable / "run"), stamp) == (gradio.skip(), gradio.skip(), stamp)
    with (readable / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "reward/mean": -0.25}\n')
    again, _, newer = lab.run(str(readable / "run"), stamp)
    assert "-0.25" in again and newer != stamp


def test_the_endpoints_read_them(client: Any, readable: Path) -> None:
    assert client.predict(api_name="/evaluations") == {str(readable / "one"): ["embedded"]}
    told = client.predict(str(readable / "one"), "embedded", "both wrong", 1, api_name="/evaluation")
    assert told["items"] == 2 and [side["model"] for side in told["sides"]] == ["small", "large"]
    assert str(readable / "run") in client.predict(api_name="/runs")
    first = {"step": 4, "reward/mean": -0.5}
    assert client.predict(str(readable / "run"), api_name="/run")["metrics"][0] == first
