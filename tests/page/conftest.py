"""The demo on the embedded pair: its models loaded once, and a page that is served for all tests that visit it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from demo.contenders import Arena
    from demo.service import Service

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


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
    return tmp_path_factory.mktemp("readable")


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
    _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_settings())
    yield url.rstrip("/")
    page.close()


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
