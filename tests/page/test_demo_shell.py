"""Command line, guard and markup: what stands around the page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from demo_helpers import QUESTION, until
from hypothesis import given
from hypothesis import strategies as st

import demo.app
from demo.app import DemoConfig, parse
from demo.errors import DemoError
from demo.guard import fetches_address, is_upload, names_address
from demo.views import markup


def test_the_defaults_are_the_embedded_pair_on_this_machine_alone(tmp_path: Path) -> None:
    config = parse([])
    assert config == DemoConfig() and config.embedded
    assert (config.host, config.share, config.auth) == ("127.0.0.1", False, None)
    assert list(config.paths) == ["student", "teacher"]
    three = parse(["--before", "zoo:student", "--student", "runs/embedded/student", "--read", str(tmp_path), "runs"])
    assert list(three.paths) == ["before", "student", "teacher"] and three.read == (tmp_path, Path("runs"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "port is 70000: allowed is 0 to 65535"),
        (["--auth", "justme"], "auth is not shown here: allowed is user:password"),
        (["--auth", ":x"], "auth is not shown here"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0: allowed is 1 or more"),
        (["--min-pixels", "9", "--max-pixels", "8"], "min_pixels is 9"),
        (["--studnet", "x"], r"unknown argument --studnet \(did you mean --student\?\)"),
        (["--dtype", "int8"], "dtype"),
        (["--read", "nosuch"], "read is nosuch: allowed is directories that are there"),
        (["--teacher", "ftp://host"], "--teacher is ftp://host: allowed is a directory, a Hub id"),
        (["--student", "http://host:8000"], "--student is http://host:8000: allowed is a directory, a Hub id"),
    ],
)
def test_bad_flags_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(DemoError, match=message) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)


def test_a_bad_model_ends_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="the demo's page needs gradio: pip install -e '.[demo]'")
    monkeypatch.setattr(sys, "argv", ["demo.app", "--threads", "1", "--student", "/no/such/place"])
    assert demo.app.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("error: /no/such/place: no such directory") and told.count("\n") == 1


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys, demo.app; sys.argv = ['x', '--help']\ntry: demo.app.main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'gradio', 'transformers', 'PIL'} & set(sys.modules)))"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]") and "--max-new-tokens" in done.stdout
    assert time.monotonic() - began < 20  # about half a second where nothing else runs


def test_without_gradio_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["demo.app"])
    assert demo.app.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the demo needs gradio") and "pip install -e '.[demo]'" in told
    assert told.count("\n") == 1


def test_interrupted_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: DemoConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.app, "launch", interrupted)
    monkeypatch.setattr(sys, "argv", ["demo.app"])
    assert demo.app.main() == 130


# The demo with models that write slowly and without end.
SLOW = """
import dataclasses, signal, time
import demo.app
from reopold_vl.models import VisionLanguageModel
from reopold_vl.rollout.hf import HFEngine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
stream = HFEngine.stream

def slow(self, *args, **named):
    for rollout in stream(dataclasses.replace(self, eos_ids=(-1,)), *args, **named):
        time.sleep(0.1)
        yield rollout

load = demo.app.load_service

def load_endless(config):
    service = load(config)  # the pair is checked here, end tokens included
    VisionLanguageModel.eos_ids = property(lambda model: (-1,))
    return service

HFEngine.stream = slow
demo.app.load_service = load_endless
raise SystemExit(demo.app.main())
"""


def test_the_command_serves_and_ends_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    gradio_client = pytest.importorskip("gradio_client", reason="needs gradio: pip install -e '.[demo]'")
    arguments = ["--port", "0", "--auth", "ada:secret:1", "--read", str(tmp_path), "--votes", str(tmp_path / "v.jsonl")]
    server = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        told = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert address is not None, (told, server.poll())
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address[0]}/config", timeout=20)
        client = gradio_client.Client(address[0], auth=("ada", "secret:1"), verbose=False)
        job = client.submit(None, QUESTION, 128, api_name="/compare")
        until(lambda: len(job.outputs()) > 1)
        began = time.monotonic()
        server.send_signal(signal.SIGINT)
        _, problems = server.communicate(timeout=60)
        assert time.monotonic() - began < 20  # about half a second where nothing else runs
        assert server.returncode == 0 and "Traceback" not in problems
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/gradio_api/file=http://x/y.png", True),
        ("/file=HTTPS://x", True),
        ("/gradio_api/file=//x/y", True),
        ("/proxy=http://x", True),
        ("/gradio_api/file=/cache/abc/image.png", False),
        ("/gradio_api/queue/join", False),
    ],
)
def test_addresses_in_paths(path: str, refused: bool) -> None:
    assert fetches_address(path) is refused


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"data": [{"path": "http://x/y.png"}]}, True),
        ({"data": [[{"a": {"path": "FTP://x"}}]]}, True),
        ({"data": [{"path": "/cache/x.png", "url": "http://127.0.0.1:7860/gradio_api/file=/cache/x"}]}, False),
        ({"data": ["see http://x"]}, False),
        ([], False),
    ],
)
def test_addresses_in_requests(body: object, refused: bool) -> None:
    assert names_address(json.dumps(body).encode()) is refused


def test_only_a_form_that_goes_to_upload_is_not_read_first() -> None:
    form = {b"content-type": b"Multipart/Form-Data; boundary=x"}
    assert is_upload("/gradio_api/upload", form) and is_upload("/upload/", form)
    assert not is_upload("/gradio_api/component_server", form)
    assert not is_upload("/gradio_api/upload", {b"content-type": b"application/json"}) and not is_upload("/upload", {})


def test_a_request_that_is_no_json_is_left_to_the_server() -> None:
    assert not names_address(b"{") and not names_address(b"[" * 100_000) and not names_address(b"\xff")


@given(st.text())
def test_markup_lets_nothing_through(value: str) -> None:
    shown = markup.text(value)
    assert not re.search(r"[<>\"'{}$`]|&(?!#?\w+;)", shown)
    assert not any(0xD800 <= ord(sign) <= 0xDFFF for sign in shown)


def test_numbers() -> None:
    assert markup.parameters(519_168) == "0.519 M" and markup.parameters(7_600_000_000) == "7.6 B"
    assert markup.seconds(0.0123) == "12.3&#8239;ms" and markup.seconds(None) == "–"
    assert markup.number(1234.4) == "1,234" and markup.number(float("nan")) == "–"
    assert markup.probability(0.1) == "100 %" and markup.percent(0.123) == "12.3&#8239;%"


def test_the_page_brings_all_its_files() -> None:
    """Nothing is named in style or scripts that would come from elsewhere."""
    place = Path(demo.__file__).parent
    for name in ("style.css", "page.js", "pad.js", "pad.html"):
        content = (place / name).read_text(encoding="utf-8")
        assert content and not re.search(r"https?://|@import|url\(", content), name
