"""The client of the teacher server: every fault of a reply is an error, patience where it helps, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from serving_help import served
from tiny import MAX_PIXELS, TEXTS, load_tiny, mixed_samples, save_tiny

from reopold_vl.models import VisionLanguageModel
from reopold_vl.serving.requests import Limits
from reopold_vl.teachers import TeacherError
from reopold_vl.teachers.http import Connection
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.server import ServerTeacher, connect
from reopold_vl.types import Rollout
from reopold_vl.vllm_http import VLLMClient


@pytest.fixture(scope="module")
def student(tiny_dirs: dict[str, Path]) -> VisionLanguageModel:
    return load_tiny(tiny_dirs["qwen2_5_vl"])


@pytest.fixture(scope="module")
def plain_teacher(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return load_tiny(save_tiny(tmp_path_factory.mktemp("plain"), "qwen2_5_vl", seed=4))


@pytest.fixture(scope="module")
def rollouts(student: VisionLanguageModel) -> list[Rollout]:
    prompts = [student.encoder(sample) for sample in mixed_samples()]
    return student.engine(rows_at_once=8).generate(prompts, n=3, max_new_tokens=6, seed=0)


def ask(url: str, student: VisionLanguageModel, **settings: Any) -> ServerTeacher:
    return connect(url, encoder=student.encoder, **settings)


def hurried(teacher: ServerTeacher) -> tuple[ServerTeacher, list[float]]:
    """The same, noting the pauses between attempts instead of making them."""
    pauses: list[float] = []
    return replace(teacher, connection=replace(teacher.connection, sleep=pauses.append)), pauses


def in_reply(change: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    """Spoils the first response of the first prompt of /v1/score."""

    def spoil(path: str, value: Any) -> Any:
        if path == "/v1/score":
            change(value["items"][0]["choices"][0])
        return value

    return spoil


def whole(change: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    return lambda path, value: change(value) if path == "/v1/score" else value


FAULTS: dict[str, tuple[Callable[[str, Any], Any], str]] = {
    "a position is missing": (in_reply(lambda c: c["logprobs"].pop()), r"\d log-probs for \d tokens"),
    "one too many": (in_reply(lambda c: c["logprobs"].append(-1.0)), r"\d log-probs for \d tokens"),
    "no log-probs": (in_reply(lambda c: c.pop("logprobs")), r"no log-probs for \d tokens"),
    "null": (in_reply(lambda c: c["logprobs"].__setitem__(0, None)), "null is no log-prob"),
    "NaN": (in_reply(lambda c: c["logprobs"].__setitem__(0, float("nan"))), "NaN is no log-prob"),
    "infinity": (in_reply(lambda c: c["logprobs"].__setitem__(0, float("inf"))), "Infinity is no log-prob"),
    "text": (in_reply(lambda c: c["logprobs"].__setitem__(0, "-1.5")), "is no log-prob"),
    "above 0": (in_reply(lambda c: c["logprobs"].__setitem__(0, 0.5)), "a log-prob of 0.5, above 0"),
    "other ids": (in_reply(lambda c: c["token_ids"].__setitem__(0, 7)), "other token ids were scored"),
    "no ids": (in_reply(lambda c: c.pop("token_ids")), "other token ids were scored"),
    "a prompt is missing": (whole(lambda v: {**v, "items": v["items"][1:]}), "not as many came back"),
    "a response is missing": (
        whole(lambda v: v["items"][0]["choices"].pop() and v),
        "responses were sent, and not as many were scored",
    ),
    "another model": (whole(lambda v: {**v, "vocabulary_sha256": "0"}), "vocabulary has changed"),
    "no picture": (whole(lambda v: v["items"][0].update(image_sizes=[]) or v), "pictures of .* were sent"),
    "another size": (whole(lambda v: v["items"][0].update(image_sizes=[[28, 28]]) or v), "the server looked at"),
    "not JSON": (whole(lambda v: b"<html>"), "the answer is not JSON"),
    "a list": (whole(lambda v: []), "not as many came back"),
}


def test_every_fault_of_a_reply_is_one_clear_line(
    student: VisionLanguageModel, plain_teacher: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    fault: list[Callable[[str, Any], Any]] = [lambda path, value: value]
    with served(plain_teacher, spoil=lambda path, value: fault[0](path, value)) as found:
        far = ask(found.url, student, requests_in_flight=1)
        far.score(rollouts)
        for name, (spoil, message) in FAULTS.items():
            fault[0] = spoil
            with pytest.raises(TeacherError, match=message) as error:
                far.score(rollouts)
            assert "\n" not in str(error.value) and found.url in str(error.value), name


def test_minus_infinity_is_a_score(
    student: VisionLanguageModel, plain_teacher: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    with served(plain_teacher, spoil=in_reply(lambda c: c["logprobs"].__setitem__(0, "-inf"))) as found:
        assert float(ask(found.url, student).score(rollouts[:1]).logprobs[0, 0]) == -torch.inf


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(
    student: VisionLanguageModel, plain_teacher: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    with served(plain_teacher) as found:
        far, pauses = hurried(ask(found.url, student, retries=3))
        expected = far.score(rollouts[:2]).logprobs
        found.paths.clear()
        found.statuses += [503, 429, 500]
        assert far.score(rollouts[:2]).logprobs.equal(expected)
        assert found.paths == ["/v1/score"] * 4
        assert all(0.75 <= pause / 0.5 / 2**turn <= 1.25 for turn, pause in enumerate(pauses)) and len(pauses) == 3
        found.statuses += [502] * 4
        with pytest.raises(TeacherError, match=r"502, planted \(tried 4 times\)"):
            far.score(rollouts[:2])
        for status in (400, 403, 404, 413, 422):
            found.paths.clear()
            found.statuses.append(status)
            with pytest.raises(TeacherError, match=f"{status}, planted"):
                far.score(rollouts[:2])
            assert found.paths == ["/v1/score"]
        found.statuses.append(302)
        with pytest.raises(TeacherError, match="302, a redirect, which is not followed"):
            far.score(rollouts[:2])
    pauses.clear()
    with pytest.raises(TeacherError, match=r"connection refused\) \(tried 4 times\)"):
        far.score(rollouts[:2])
    assert len(pauses) == 3


def test_who_is_no_teacher_of_this_student_is_refused_at_once(
    student: VisionLanguageModel, plain_teacher: VisionLanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match="nobody answers there"):
        ask("http://127.0.0.1:9", student, retries=0)
    with pytest.raises(TeacherError, match="no such host"):
        ask("http://teacher.localhost.:9", student, retries=0)
    for page in (b"<html>hello</html>", b"{}", b"[1]", b'{"server": "reopold_vl.serve_teacher"}'):
        with (
            served(plain_teacher, spoil=lambda path, value, page=page: page) as found,
            pytest.raises(TeacherError, match="is no teacher server: start one"),
        ):
            ask(found.url, student)
    with (
        served(plain_teacher, spoil=lambda path, value: {**value, "api": 99}) as found,
        pytest.raises(TeacherError, match="speaks version 99"),
    ):
        ask(found.url, student)
    with (
        served(plain_teacher, limits=Limits(image_pixels=MAX_PIXELS - 1)) as found,
        pytest.raises(TeacherError, match=r"images.max_pixels is \d+, the server allows \d+"),
    ):
        ask(found.url, student)
    other = load_tiny(save_tiny(tmp_path, "qwen2_5_vl", seed=1, texts=("zzzz zzz zz qqq", *TEXTS)))
    with served(other) as found, pytest.raises(TeacherError, match=r"tokenizers differ: id \d+ is .* for the student"):
        ask(found.url, student)


def test_the_token(student: VisionLanguageModel, plain_teacher: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    with served(plain_teacher, token="geheim") as found:
        assert ask(found.url, student, token="geheim").score(rollouts[:2]).logprobs.isfinite().all()
        for token, words in (
            (None, "wants a token"),
            ("falsch", "refuses the token"),
            ("geheimx", "refuses the token"),
        ):
            with pytest.raises(TeacherError, match=rf"{words} \(401\): see teacher.token_env") as error:
                ask(found.url, student, token=token)
            assert "geheim" not in str(error.value)


def test_pieces_keep_to_the_servers_limits(
    student: VisionLanguageModel, plain_teacher: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    expected = LocalTeacher(plain_teacher, rows_at_once=3).score(rollouts).logprobs
    for limits in (Limits(items=1), Limits(rows=3), Limits(body_bytes=150_000)):
        with served(plain_teacher, limits=limits) as found:
            far = ask(found.url, student)
            torch.testing.assert_close(far.score(rollouts).logprobs, expected, rtol=1e-6, atol=1e-6)
            assert found.paths.count("/v1/score") == 4 or limits.body_bytes == 150_000


@pytest.mark.parametrize("kind", ["ours", "vllm"])
def test_the_token_goes_out_whatever_a_netrc_says(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str | None] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        client = Connection(url, "geheim", 10, 0) if kind == "ours" else VLLMClient(url, "geheim", retries=0)
        assert client.get("/v1/info") == {}
    assert sent == ["Bearer geheim"]
