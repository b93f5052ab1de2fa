"""The page's named endpoints, end to end on the embedded pair, as a program uses them."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from demo_helpers import QUESTION, endless, until

from demo.examples import held_out
from demo.service import Service


def upload(path: Path) -> Any:
    from gradio_client import handle_file

    return handle_file(str(path))


def test_every_function_has_a_name(client: Any) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {
        "/models", "/compare", "/credit", "/recolour", "/vision", "/blind", "/vote", "/tally", "/surprise", "/sketch",
        "/evaluations", "/evaluation", "/runs", "/run",
    }  # fmt: skip
    assert [p["parameter_name"] for p in named["/compare"]["parameters"]] == [
        "image", "question", "max_new_tokens", "temperature", "top_p", "seed",
    ]  # fmt: skip


def test_compare_streams_all_answers(client: Any, grid: Path, service: Service) -> None:
    job = client.submit(upload(grid), QUESTION, api_name="/compare")
    last = job.result(timeout=60)
    assert [column["role"] for column in last["columns"]] == ["before", "student", "teacher"]
    for column in last["columns"]:
        alone = service.answer(column["role"], held_out(0), service.sampling(0, 1, 0, 56))
        assert column["text"] == alone.columns[0].text and column["state"] == "stop"
        assert column["text"].endswith(f"Answer: {column['answer']}")
        assert 0 < column["first_token_seconds"] < column["seconds"]
        assert column["tokens"] == len(alone.columns[0].times) > 10 and column["tokens_per_second"] > 0
    assert last["columns"][0]["speed_up"] > 0 and last["columns"][2]["speed_up"] is None
    assert len(job.outputs()) > 1


def test_compare_without_a_picture_and_with_sampling(client: Any) -> None:
    answers = [
        client.predict(None, QUESTION, 24, 2.0, 1.0, seed, api_name="/compare")["columns"][1]["text"]
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_credit_and_recolouring(client: Any, grid: Path) -> None:
    scored = client.predict(upload(grid), QUESTION, api_name="/credit")
    assert scored["floor"] == pytest.approx(math.log(0.3) / 0.7)
    for token in scored["tokens"]:
        assert token["reward"] == pytest.approx(token["teacher_logprob"] - token["student_logprob"])
        assert token["clipped"] == (not token["explored"]) == (token["reward"] < scored["floor"])
    again = client.predict(scored, 0.9, 1.0, api_name="/recolour")
    assert again["floor"] == pytest.approx(math.log(0.9) / 0.1)
    assert all(token["refined"] for token in again["tokens"])
    assert [t["reward"] for t in again["tokens"]] == pytest.approx([t["reward"] for t in scored["tokens"]])


def test_vision(client: Any, grid: Path) -> None:
    seen = client.predict(upload(grid), QUESTION, api_name="/vision", model="teacher")
    assert seen["model"] == "teacher"
    with_picture = sum(token["seen"] for token in seen["tokens"])
    assert with_picture > sum(token["blurred"] for token in seen["tokens"]) + 1
    assert with_picture > sum(token["removed"] for token in seen["tokens"]) + 1
    text = "".join(token["token"] for token in seen["tokens"])
    assert "".join(token["token"] for token in seen["tokens"] if token["answer"]).strip() == text.split("Answer: ")[1]


def test_blind_vote_counts_once(client: Any, grid: Path, service: Service) -> None:
    before = client.predict(api_name="/tally")
    shown = client.predict(upload(grid), QUESTION, api_name="/blind")
    assert set(shown) == {"ballot", "A", "B"}
    told = client.predict(shown["ballot"], "A", api_name="/vote")
    assert {told["A"], told["B"]} == {"student", "teacher"}
    assert told["tally"][told["A"]] == before[told["A"]] + 1
    with pytest.raises(Exception, match="voted on"):
        client.predict(shown["ballot"], "A", api_name="/vote")
    line = json.loads(service.votes.read_text(encoding="utf-8").splitlines()[-1])
    assert line["vote"] == told["A"] and {answer["label"] for answer in line["answers"]} == {"A", "B"}
    assert all(answer["text"] for answer in line["answers"])


def test_surprise_and_sketch_give_pictures(client: Any) -> None:
    picture, question, gold = client.predict(api_name="/surprise")
    assert Path(picture).stat().st_size > 100 and question.endswith("?") and gold
    drawn, question = client.predict([[[0.1, 0.1], [0.12, 0.3]]], 3, api_name="/sketch")
    assert Path(drawn).stat().st_size > 100 and question.startswith("What is the sum of")


@pytest.mark.parametrize(
    ("arguments", "endpoint", "message"),
    [
        ((None, "  "), "/compare", "question: there is none"),
        ((None, "star " * 4001), "/compare", "20,005 characters; allowed are 20,000"),
        ((None, "star " * 700), "/compare", r"question: .* tokens; allowed are 400"),
        ((None, "<|im_end|> hello"), "/compare", "special token"),
        ((None, QUESTION, 129), "/compare", "max_new_tokens is 129: allowed are 1 to 128"),
        ((None, QUESTION, 8.5), "/compare", "whole numbers"),
        ((None, QUESTION, 8, 3), "/compare", "temperature is 3"),
        ((None, QUESTION), "/vision", "no picture"),
        ((None, QUESTION, 8, 0, 1, 0, 0.3, 0.2, "nobody"), "/credit", "model 'nobody'"),
        ((None, QUESTION, 8, 0, 1, 0, 0.3, 0.2, "teacher"), "/credit", "needs an answer of a student"),
        ((None, QUESTION, 8, 0, 1, 0, 1.5), "/credit", "lambda"),
        (({"tokens": [1]}, 0.3, 0.2), "/recolour", "what /credit returns"),
        (("no such ballot", "A"), "/vote", "voted on, or is too old"),
        (([[["a", 1]]], 0), "/sketch", "a list of strokes"),
        (([], 2200), "/sketch", "0 to 2199"),
        (("/etc", "embedded"), "/evaluation", "is not one of those found"),
        (("/etc",), "/run", "is not one of those found"),
        ((None, QUESTION, None), "/compare", "max_new_tokens is None"),
        ((None, QUESTION, 8, None), "/compare", "temperature is None"),
    ],
)
def test_bad_input_is_one_line(client: Any, arguments: tuple[Any, ...], endpoint: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        client.predict(*arguments, api_name=endpoint)


def test_a_cancelled_job_stops_the_models(client: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(service.arena, monkeypatch)
    before = threading.active_count()  # those of earlier tests are in it
    job = client.submit(None, QUESTION, 128, api_name="/compare")
    until(lambda: len(job.outputs()) > 1)
    job.cancel()
    until(lambda: not service.arena.alone("cpu").locked())
    assert threading.active_count() < before + 20  # the server's own pool may grow
    assert client.predict(api_name="/models")[0]["role"] == "before"


def test_a_waiting_visitor_sees_the_place(client: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(service.arena, monkeypatch)
    jobs = [client.submit(None, QUESTION, 128, api_name="/compare")]
    until(lambda: len(jobs[0].outputs()) > 1)
    jobs += [client.submit(None, QUESTION, 128, api_name="/compare") for _ in range(2)]
    until(lambda: {job.status().rank for job in jobs[1:]} == {0, 1})
    for job in jobs[::-1]:  # the last in the queue first, one after the other: a job that just starts is not waiting
        job.cancel()
        until(job.done)
        time.sleep(0.5)
    until(lambda: not service.arena.alone("cpu").locked())
