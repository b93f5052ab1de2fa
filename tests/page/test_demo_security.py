"""What a hostile visitor tries on the served page: files, addresses, large requests."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from demo_helpers import QUESTION

from demo.guard import MAX_BODY_BYTES, MAX_FORM_BYTES


def get(url: str) -> tuple[int, bytes, Any]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "demo/app.py",
        "../../etc/passwd",
        "http://127.0.0.1:9/secret",
        "HTTPS://example.com/x.png",
        "//example.com/x.png",
        "file:///etc/passwd",
    ],
)
def test_no_file_and_no_address_can_be_fetched(address: str, path: str) -> None:
    for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/proxy="):
        status, body, _ = get(address + prefix + path)
        assert status in (403, 404), (prefix, status)
        assert b"root:" not in body and b"command line" not in body


def test_an_upload_by_address_is_refused(client: Any) -> None:
    remote = {"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}, "url": None}
    with pytest.raises(Exception, match=r"403|Forbidden|fetched"):
        client.predict(remote, QUESTION, api_name="/compare")


def test_a_path_in_place_of_an_upload_is_refused(client: Any) -> None:
    local = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [local, QUESTION, 8, 0, 1, 0], "session_hash": "abcdefgh"}
    request = urllib.request.Request(
        client.src.rstrip("/") + "/gradio_api/call/compare",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        event = json.loads(answer.read())["event_id"]
    with urllib.request.urlopen(f"{client.src.rstrip('/')}/gradio_api/call/compare/{event}", timeout=20) as answer:
        told = answer.read().decode()
    assert "event: error" in told and "columns" not in told


def test_the_page_names_no_other_place(address: str) -> None:
    status, body, headers = get(address + "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    loaded = re.findall(rb"""(?:src|href)=["'](https?:)?//([^"'/]+)""", body)
    assert not loaded, loaded


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/x+json", "multipart/form-data"])
def test_no_content_type_gets_an_address_past_the_guard(address: str, kind: str) -> None:
    body = {"data": [{"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}}, QUESTION, 8, 0, 1, 0]}
    for path in ("call/compare", "run/compare", "queue/join"):
        request = urllib.request.Request(
            f"{address}/gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": kind}
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=20)


@pytest.mark.parametrize(
    "size", [{"Transfer-Encoding": "chunked"}, {"Content-Length": str(MAX_FORM_BYTES + 1)}], ids=["unsized", "large"]
)
def test_an_upload_must_say_its_size_and_keep_to_the_limit(address: str, size: dict[str, str]) -> None:
    """Refused by its headers: none of the body, which the server would not read, has to be sent."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/gradio_api/upload")
    for name, value in {"Content-Type": "multipart/form-data; boundary=x", **size}.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_no_history_is_kept_elsewhere(address: str) -> None:
    for path in ("runs", "run-history/records", "run-history/buckets"):
        assert get(f"{address}/gradio_api/{path}")[0] == 404, path


def test_a_large_request_is_refused(address: str) -> None:
    """One byte too many, so that the server has read all of it when it answers."""
    body = b'["' + b"x" * (MAX_BODY_BYTES - 3) + b'"]'
    request = urllib.request.Request(address + "/gradio_api/call/compare", body, {"Content-Type": "application/json"})
    assert len(body) == MAX_BODY_BYTES + 1
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(request, timeout=20)


def test_a_large_upload_is_refused(client: Any, tmp_path: Path) -> None:
    gradio_client = pytest.importorskip("gradio_client")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + b"0" * (21 * 2**20))
    with pytest.raises(Exception, match=r"413|exceeds"):
        client.predict(gradio_client.handle_file(str(tmp_path / "large.png")), QUESTION, api_name="/compare")
