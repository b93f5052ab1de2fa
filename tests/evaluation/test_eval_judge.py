"""The judge: asked only what the rules could not read, never told the gold answer, failures counted and not scored."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from stored import response, write

from eval.benches import find_bench
from eval.judge import MAX_ANSWER, Judge, judge_unparsed
from eval.run import main
from eval.score import grade

Reply = Callable[[dict[str, Any]], tuple[int, bytes]]


@contextmanager
def endpoint(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, requests seen) of a local server that answers with what `reply` makes of each request."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
            status, content = reply(body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def says(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


MUMBLED = "It could well be that one there, hard to say."


def judged(reply: Reply, *texts: str) -> tuple[list, Any, list[dict[str, Any]]]:
    bench = find_bench("embedded")
    graded = grade(bench, [response(number, text) for number, text in enumerate(texts)], "strict")
    with endpoint(reply) as (url, seen):
        result, tally = judge_unparsed(graded, bench.graders["strict"], Judge(url, "reader", timeout=5, wait=0.01))
    return result, tally, seen


def test_only_unparsed_responses_are_asked_about_and_gold_is_not_told() -> None:
    result, tally, seen = judged(lambda body: says("4"), "Answer: 4", MUMBLED, "Answer: 5")
    assert [item.correct for item in result] == [True, True, False]
    assert result[1].verdict.status == "answered" and result[1].verdict.rule.startswith("judge")
    assert tally.counts() == {"asked": 1, "answered": 1, "silent": 0, "failed": 0}
    (request,) = seen
    assert request["path"] == "/v1/chat/completions" and request["key"] is None
    assert (request["body"]["model"], request["body"]["temperature"]) == ("reader", 0)
    told = json.loads(request["body"]["messages"][1]["content"])
    assert told == {"question": "What is 1?", "response": MUMBLED}
    assert not any("4" in message["content"] for message in request["body"]["messages"])  # the gold answer


def test_a_wrong_extraction_is_wrong() -> None:
    result, tally, _ = judged(lambda body: says("5"), MUMBLED)
    assert result[0].verdict.status == "answered" and not result[0].correct
    assert tally.answered == 1


@pytest.mark.parametrize("text", ["NONE", "none.", '"NONE"', "<think>maybe 4</think> NONE"])
def test_no_answer_stays_unparsed(text: str) -> None:
    result, tally, _ = judged(lambda body: says(text), MUMBLED)
    assert result[0].verdict.status == "unparsed"
    assert (tally.silent, tally.failed) == (1, 0)


@pytest.mark.parametrize(
    ("reply", "reason", "calls"),
    [
        ((500, b"{}"), "status 500", 3),
        ((429, b"{}"), "status 429", 3),
        ((401, b"{}"), "status 401", 1),
        ((302, b""), "status 302", 1),
        ((200, b"not json"), "the reply is not JSON", 1),
        ((200, b"{}"), "the reply holds no message", 1),
        ((200, b'{"choices": []}'), "the reply holds no message", 1),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "the reply is empty", 1),
        (says("4 because " * MAX_ANSWER), "the reply is an essay and no answer", 1),
    ],
)
def test_a_failed_call_is_counted_and_never_scored(reply: tuple[int, bytes], reason: str, calls: int) -> None:
    result, tally, seen = judged(lambda body: reply, MUMBLED)
    assert result[0].verdict.status == "unparsed" and not result[0].correct
    assert (tally.failed, tally.answered, dict(tally.reasons)) == (1, 0, {reason: 1})
    assert len(seen) == calls
    assert "1 calls failed" in str(tally) and reason in str(tally)


def test_an_endpoint_that_is_not_there_fails_each_call() -> None:
    bench = find_bench("embedded")
    graded = grade(bench, [response(1, MUMBLED), response(2, MUMBLED)], "strict")
    judge = Judge("http://127.0.0.1:9", "reader", timeout=1, wait=0.01)
    result, tally = judge_unparsed(graded, bench.graders["strict"], judge)
    assert result == graded and tally.failed == 2


def test_empty_responses_are_not_sent() -> None:
    _, tally, seen = judged(lambda body: says("4"), "")
    assert seen == [] and tally.silent == 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a:1", "http://a:1/v1/chat/completions"),
        ("http://a:1/v1/", "http://a:1/v1/chat/completions"),
        ("http://a:1/x/chat/completions", "http://a:1/x/chat/completions"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert Judge(url, "m").address == address


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sesame")
    _, _, seen = judged(lambda body: says("4"), MUMBLED)
    assert seen[0]["key"] == "Bearer sesame"


def test_the_command_prints_and_writes_what_was_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, [response(1), response(2, MUMBLED)])
    with endpoint(lambda body: says("4")) as (url, _):
        assert main(["--score", str(path), "--judge", url, "--judge-model", "reader"]) == 0
    assert "judge: 1 unparsed responses, 1 read, 0 without an answer, 0 calls failed" in capsys.readouterr().out
    details = json.loads((tmp_path / "results.json").read_text())["reopold_vl"]["benches"]["embedded"]
    assert details["judge"] == {"asked": 1, "answered": 1, "silent": 0, "failed": 0}
    assert details["accuracy"]["value"] == 1.0 and details["counts"]["unparsed"] == 0
