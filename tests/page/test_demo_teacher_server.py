"""The page with its teacher behind a server, over real HTTP on both sides."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from demo_helpers import QUESTION

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from demo.contenders import Arena


@pytest.fixture(scope="module")
def remote(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The server of the embedded teacher, and a program that uses a page whose teacher it is."""
    gradio_client = pytest.importorskip("gradio_client", reason="needs gradio: pip install -e '.[demo]'")
    from serving_help import served

    from demo.contenders import load_arena
    from demo.page import build_page, launch_settings
    from demo.places import Places
    from demo.service import Service

    with served(arena["teacher"].model) as server:
        far = load_arena(
            {"student": "zoo:student", "teacher": server.url},
            device="cpu",
            dtype="float32",
            min_pixels=4 * 28 * 28,
            max_pixels=256 * 28 * 28,
            max_prompt_tokens=400,
        )
        assert far.mismatch is None
        votes = tmp_path_factory.mktemp("votes") / "votes.jsonl"
        page = build_page(Service(far, Places.of([]), votes, max_new_tokens=128), default_tokens=56)
        _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_settings())
        yield server, gradio_client.Client(url, verbose=False)
        page.close(verbose=False)


def test_the_teachers_column_streams_from_the_server(remote: tuple[Any, Any], client: Any, grid: Path) -> None:
    from gradio_client import handle_file

    _, far = remote
    frames = list(far.submit(handle_file(grid), QUESTION, 40, api_name="/compare"))
    (near,) = client.predict(handle_file(grid), QUESTION, 40, api_name="/compare")["columns"][-1:]
    theirs = frames[-1]["columns"][-1]
    assert theirs["role"] == "teacher" and theirs["model"] == "tiny"  # by its name, not its address
    names = ("text", "answer", "tokens", "state", "parameters")
    assert {name: theirs[name] for name in names} == {name: near[name] for name in names}
    lengths = [frame["columns"][-1]["tokens"] for frame in frames]
    assert lengths == sorted(lengths) and len(set(lengths)) > 1


def test_credit_and_vision_ask_the_server(remote: tuple[Any, Any], client: Any, grid: Path) -> None:
    from gradio_client import handle_file

    server, far = remote
    for view, role in (("/credit", "student"), ("/vision", "teacher")):
        server.paths.clear()
        theirs, ours = (
            one.predict(handle_file(grid), QUESTION, model=role, api_name=view)["tokens"] for one in (far, client)
        )
        assert "/v1/score" in server.paths
        for one, other in zip(theirs, ours, strict=True):
            assert one == pytest.approx(other, abs=2e-5)


def test_a_server_that_is_gone_is_said_in_the_page(remote: tuple[Any, Any], grid: Path) -> None:
    from gradio_client import handle_file

    server, far = remote
    server.statuses += [503]  # an answer that has begun is not asked for again
    columns = far.predict(handle_file(grid), QUESTION, 40, api_name="/compare")["columns"]
    assert columns[0]["state"] in ("stop", "length") and columns[1]["state"] == "failed"
    assert columns[1]["problem"] == "the teacher server: 503, planted"
    assert server.url not in str(columns)
    server.statuses += [503, 503]
    with pytest.raises(Exception, match=r"the teacher server: 503, planted \(tried 2 times\)"):
        far.predict(handle_file(grid), "How many circles are there?", api_name="/credit")


def test_a_page_does_not_start_without_its_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    import demo.app

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["demo", "--teacher", "http://127.0.0.1:9"])
        patch.setattr("demo.remote.RETRIES", 0)
        assert demo.app.main() == 2
    assert "http://127.0.0.1:9/v1/info: nobody answers there" in capsys.readouterr().err
