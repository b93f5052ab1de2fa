"""Data sets of the Hub, with `datasets` stood in for: ids that move, splits, encoded images, failing connections."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from typing import Any

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.utils import http_backoff
from toy_bench import BENCH, ids, png, row

from eval.benchmark import BenchmarkError, Source
from eval.hub import retries_in_one_line
from eval.load import load_problems

FEATURES = datasets.Features(
    id=datasets.Value("string"),
    question=datasets.Value("string"),
    image=datasets.Image(),
    answer=datasets.Value("string"),
)


class Hub:
    """Stands in for datasets.load_dataset: the tables it has, by (id, split); what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tables: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
        self.tables, self.asked = tables, []
        self.error: Exception = DatasetNotFoundError("Dataset doesn't exist on the Hub")
        monkeypatch.setattr(datasets, "load_dataset", self.load)
        monkeypatch.setattr(datasets, "get_dataset_split_names", self.splits)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)

    def load(self, name: str, config: str | None, split: str, revision: str | None) -> datasets.Dataset:
        self.asked.append((name, config, split))
        if all(name != known for known, _ in self.tables):
            raise self.error
        if (name, split) not in self.tables:
            raise ValueError(f'Unknown split "{split}".')
        table = datasets.Dataset.from_list(self.tables[name, split], features=FEATURES)
        url = f"hf://datasets/{name}@{'0123456789' * 4}/data/{split}.parquet"
        table.info.download_checksums = {url: {}}
        return table

    def splits(self, name: str, config: str | None) -> list[str]:
        return [split for known, split in self.tables if known == name]


def test_the_hub_gives_encoded_images_and_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("a"), row("damaged", image={"bytes": b"no image", "path": None})]
    hub = Hub(monkeypatch, {("new/toy", "testmini"): rows})
    loaded = load_problems(BENCH)
    assert ids(loaded) == ["a"] and loaded.problems[0].images == (png(),)
    assert [item.id for item in loaded.failed] == ["damaged"]
    assert loaded.origin == "new/toy" and loaded.revision == "0123456789" * 4
    assert hub.asked == [("new/toy", None, "testmini")]


def test_an_id_that_is_not_found_leads_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, {("old/toy", "testmini"): [row("a")]})
    loaded = load_problems(BENCH)
    assert loaded.origin == "old/toy" and "not used: new/toy: Dataset doesn't exist" in loaded.notes[0]
    Hub(monkeypatch, {("new/toy", "other"): [row("a")], ("old/toy", "testmini"): [row("b")]})
    assert ids(load_problems(BENCH)) == ["b"]  # the split is missing in the new one


def test_all_ids_that_were_tried_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, {})
    with pytest.raises(BenchmarkError, match=r"toy \[testmini\].*new/toy: .*old/toy: .*--data-path"):
        load_problems(BENCH)


def test_a_failing_connection_is_no_missing_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, {})
    hub.error = ConnectionError("Couldn't reach the Hub")
    with pytest.raises(BenchmarkError, match=r"new/toy cannot be read from the Hub: Couldn't reach.*--data-path"):
        load_problems(BENCH)
    assert len(hub.asked) == 1
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # then only the cache is looked at, for each id
    with pytest.raises(BenchmarkError, match="old/toy"):
        load_problems(BENCH)


def test_the_retries_of_a_request_are_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own requests, to a port where nobody listens."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"

    def ask() -> int:
        caplog.clear()
        with pytest.raises(Exception, match="refused"):
            http_backoff("HEAD", address, max_retries=2, base_wait_time=0.01)
        return len(caplog.records)

    assert ask() == 5  # three failures and two repetitions
    with retries_in_one_line():
        assert ask() == 1 and "the Hub does not answer" in caplog.text and address in caplog.text
        assert ask() == 0
    with retries_in_one_line():
        logging.getLogger("huggingface_hub.utils._http").warning("Rate limited. Waiting 9s before retry [Retry 1/5].")
        assert "Waiting 9s" in caplog.text and ask() == 1
    assert ask() == 5


def test_several_splits_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, {("new/toy", name): [row(name)] for name in ("v1", "v2", "v3")})
    bench = replace(BENCH, splits=("all", "v1+v3"))
    loaded = load_problems(bench)
    assert [(problem.id, problem.extra["_split"]) for problem in loaded.problems] == [
        (n, n) for n in ("v1", "v2", "v3")
    ]
    assert ids(load_problems(bench, split="v1+v3")) == ["v1", "v3"]


def test_all_configurations_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, {("new/toy", "testmini"): [row("a")]})
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["Art", "Math"])
    loaded = load_problems(replace(BENCH, sources=(Source("new/toy", "*"),)))
    assert [problem.extra["_config"] for problem in loaded.problems] == ["Art", "Math"]
    assert hub.asked == [("new/toy", "Art", "testmini"), ("new/toy", "Math", "testmini")]
    load_problems(replace(BENCH, sources=(Source("new/toy", "of_{split}"),)))
    assert hub.asked[2] == ("new/toy", "of_testmini", "testmini")
