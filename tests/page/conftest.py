"""The demo on the embedded pair: its models loaded once, and a page that is served for all tests that visit it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from demo_helpers import store_evaluation

if TYPE_CHECKING:
    from demo.contenders import Arena
    from demo.service import Service

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


hosts_asked: set[str] = set()  # that have been asked for while the page was served


@pytest.fixture(scope="session")
def arena() -> Arena:
    """Before, student and teacher, all embedded."""
    from demo.contenders import load_arena

    return load_arena(
        {"before": "zoo:student", "student": "zoo:student", "teacher": "zoo:teacher"},
        device="cpu",
        dtype="float32",
        min_pixels=4 * 28 * 28,
        max_pixels=256 * 28 * 28,
        max_prompt_tokens=400,
    )


@pytest.fixture(scope="session")
def readable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one directory whose runs and evaluations the page may show."""
    place = tmp_path_factory.mktemp("readable")
    store_evaluation(place / "one")
    (place / "run").mkdir()
    (place / "run" / "metrics.jsonl").write_text('{"step": 4, "reward/mean": -0.5}\n')
    return place


@pytest.fixture(scope="session")
def service(arena: Arena, readable: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    from demo.places import Places
    from demo.service import Service

    votes = tmp_path_factory.mktemp("votes") / "votes.jsonl"
    return Service(arena, Places.of([readable]), votes, max_new_tokens=128)


@pytest.fixture(scope="session")
def address(service: Service) -> Iterator[str]:
    """The page, served; skipped where gradio is not installed."""
    pytest.importorskip("gradio", reason="the demo's page needs gradio: pip install -e '.[demo]'")
    from demo.page import build_page, launch_settings

    page = build_page(service, default_tokens=56)
    with recorded_hosts(hosts_asked):
        _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_settings())
        yield url.rstrip("/")
        page.close(verbose=False)
    assert "127.0.0.1" in hosts_asked  # else the recording does not work


@pytest.fixture(autouse=True)
def asks_no_other_machine() -> Iterator[None]:
    """After every test of the page, not at the end of the session: other tests look for hosts that are not there."""
    yield
    assert hosts_asked <= {"127.0.0.1", "localhost", "0.0.0.0", "::1"}


@contextmanager
def recorded_hosts(hosts: set[str]) -> Iterator[None]:
    """Adds the hosts that this process looks up or connects to."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connecting(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):  # else a path: a socket of this machine
            hosts.add(address[0])
        connect(self, address)

    def looking_up(host: Any, *args: Any, **named: Any) -> Any:
        hosts.update([host.decode() if isinstance(host, bytes) else host] if host else [])
        return look_up(host, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connecting)
        patch.setattr(socket, "getaddrinfo", looking_up)
        yield


@pytest.fixture
def client(address: str) -> Any:
    """A program that uses the page's endpoints."""
    gradio_client = pytest.importorskip("gradio_client")
    return gradio_client.Client(address, verbose=False)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A picture of the embedded benchmark as a file; the question about it is "How many yellow shapes are there?"."""
    from demo.examples import held_out

    held_out(0).images[0].save(tmp_path / "grid.png")
    return tmp_path / "grid.png"


@pytest.fixture(scope="module")  # playwright keeps an event loop in this thread as long as it runs
def browser() -> Iterator[Any]:
    """Debian's Chromium under playwright; skipped where one of them is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs a chromium in PATH, or CHROMIUM naming it")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


class Visit:
    """One visitor's tab, with what it asked for and what went wrong."""

    def __init__(self, browser: Any, address: str, scheme: str, width: int) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)  # a busy machine may take its time to open a page
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(f"{address}/?__theme={scheme}")
        self.page.wait_for_selector("#rv-ask")

    def ask(self, question: str) -> None:
        self.page.fill("#rv-question textarea", question)
        self.page.click("#rv-ask")

    def wait_for_text(self, selector: str, text: str) -> None:
        """Until the element's text holds `text`."""
        self.page.locator(selector, has_text=text).first.wait_for()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Visit]]:
    """Opens a visitor's tab; at the end none of them asked for anything elsewhere, and no script failed."""
    opened: list[Visit] = []

    def open_page(scheme: str = "light", width: int = 1440) -> Visit:
        opened.append(Visit(browser, address, scheme, width))
        return opened[-1]

    yield open_page
    for tab in opened:
        tab.context.close()
        assert [url for url in tab.requests if not url.startswith((address, "data:", "blob:"))] == []
        assert tab.problems == []
