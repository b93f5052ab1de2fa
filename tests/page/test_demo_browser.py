"""A real headless browser on the page: upload, ask, both streams, credit, sliders, drawing, voting, light and dark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from demo_helpers import QUESTION, endless, until

from demo.service import Service

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>${1+1} {{value}} &amp;"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_upload_ask_credit_slider(visit: Any, grid: Path, tmp_path: Path, scheme: str) -> None:
    tab = visit(scheme)
    tab.page.set_input_files("#rv-picture input[type=file]", str(grid))
    tab.ask(QUESTION)
    tab.page.wait_for_selector("#rv-credit .rv-tokens")
    cards = tab.page.locator("#rv-answers .rv-card")
    assert cards.count() == 3
    assert [cards.nth(k).get_attribute("data-state") for k in range(3)] == ["stop"] * 3
    answer = cards.nth(2).locator("strong").inner_text()
    assert cards.nth(2).locator(".rv-text").inner_text().endswith(f"Answer: {answer}")
    assert cards.nth(0).locator(".rv-speed").count() == 1

    token = tab.page.locator("#rv-credit .rv-tokens .rv-t").first
    assert {"R =", "teacher", "student", "entropy", "refinement"} <= set(
        re.findall("R =|teacher|student|entropy|refinement", token.get_attribute("data-tip") or "")
    )
    token.hover()
    assert "floor -1.72" in tab.page.inner_text("#rv-credit .rv-histogram")
    tab.page.fill("#rv-lambda input[type=number]", "0.5")
    tab.page.press("#rv-lambda input[type=number]", "Enter")
    tab.page.wait_for_function("document.querySelector('#rv-credit .rv-histogram').textContent.includes('-1.39')")

    tab.page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    assert (tmp_path / f"{scheme}.png").stat().st_size > 20_000
    dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(value) for value in re.findall(r"\d+", dark)[:3]) < 60) == (scheme == "dark")


def test_example_knows_its_gold_answer_and_vision_check(visit: Any) -> None:
    tab = visit()
    tab.page.click('#rv-gallery [data-index="6"]')
    tab.page.wait_for_function("document.querySelector('#rv-question textarea').value.includes('sum')")
    tab.page.click("#rv-ask")
    tab.page.wait_for_selector("#rv-credit .rv-tokens")
    assert tab.page.locator("#rv-answers .rv-verdict").count() == 3
    tab.page.get_by_role("tab", name="Vision check").click()
    tab.page.click("#rv-check")
    tab.page.wait_for_selector("#rv-sight .rv-tokens")
    assert "nats" in tab.page.inner_text("#rv-sight .rv-sentence")
    tab.page.click(".rv-replay")
    assert tab.page.locator("#rv-answers .rv-slow").count() == 1


def test_drawn_digits_reach_the_models(visit: Any) -> None:
    tab = visit()
    tab.page.get_by_role("tab", name="Draw digits").click()
    tab.page.wait_for_selector("#rv-pad canvas")  # what is seen is what is asked about, before the first stroke too
    tab.page.wait_for_function("document.querySelector('#rv-question textarea').value.includes('sum')")
    box = tab.page.locator("#rv-pad canvas").bounding_box()
    for row in range(3):  # grid 0 asks for the sum of column 3
        x, y = box["x"] + box["width"] * 2.5 / 3, box["y"] + box["height"] * (row + 0.5) / 3
        tab.page.mouse.move(x, y - box["height"] / 9)
        tab.page.mouse.down()
        tab.page.mouse.move(x, y + box["height"] / 9, steps=6)
        with tab.page.expect_response("**/run/predict*"):
            tab.page.mouse.up()
    tab.page.click("#rv-ask")
    tab.page.wait_for_selector("#rv-credit .rv-tokens")
    assert tab.page.inner_text("#rv-answers .rv-teacher .rv-text").startswith("1+1+1=2+1=3.")
    tab.page.click('#rv-gallery [data-index="0"]')
    tab.page.wait_for_selector("#rv-picture")
    assert not tab.page.is_visible("#rv-pad")


def test_blind_vote(visit: Any, service: Service) -> None:
    tab = visit()
    tab.page.check("#rv-blind input")
    tab.page.click("#rv-ask")
    tab.page.wait_for_selector("#rv-vote button")
    shown = tab.page.inner_text("#rv-answers")
    assert "Answer A" in shown and not re.search("student|teacher|zoo|tokens/s", shown, re.IGNORECASE)
    tab.page.get_by_role("tab", name="Vision check").click()
    tab.page.click("#rv-check")
    tab.wait_for_text("#rv-sight", "Covered")
    tab.page.get_by_role("tab", name="Credit").click()
    with tab.page.expect_response("**/run/predict*"):
        tab.page.fill("#rv-lambda input[type=number]", "0.5")
        tab.page.press("#rv-lambda input[type=number]", "Enter")
    tab.page.wait_for_timeout(300)
    assert "Covered" in tab.page.inner_text("#rv-credit")  # a slider tells nothing either
    votes = service.tally().total
    tab.page.get_by_role("button", name="Equally good").click()
    tab.wait_for_text("#rv-revealed .rv-sentence", "was the teacher")
    assert service.tally().total == votes + 1
    tab.wait_for_text("#rv-credit", "floor -1.39")


def test_nothing_a_model_or_visitor_writes_runs(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import demo.compare
    import demo.credit

    monkeypatch.setattr(demo.compare, "extend_texts", lambda tokenizer, pieces, ids: (HOSTILE,) * len(ids))
    monkeypatch.setattr(demo.credit, "token_texts", lambda tokenizer, ids: (HOSTILE,) * len(ids))
    tab = visit()
    tab.ask(HOSTILE)
    tab.page.wait_for_selector("#rv-credit .rv-tokens")
    assert (tab.page.locator("#rv-answers .rv-text").first.text_content() or "").startswith(HOSTILE)
    assert tab.page.locator("#rv-credit .rv-t").first.inner_text() == HOSTILE
    assert tab.page.locator("#rv-answers img, #rv-credit img, #rv-answers script").count() == 0
    assert tab.page.title() != "owned"


def test_an_error_is_shown_as_text(visit: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    tab = visit()
    tab.page.set_input_files("#rv-picture input[type=file]", str(tmp_path / "broken.png"))
    tab.ask(QUESTION)
    tab.page.wait_for_selector(".toast-body")
    assert "picture:" in tab.page.inner_text(".toast-body")


WRITTEN = "document.querySelector('#rv-answers .rv-{} .rv-text')?.innerText.length ?? 0"


def test_both_stream_and_stop_leaves_what_was_written(
    visit: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless(service.arena, monkeypatch)
    tab = visit()
    tab.page.click("#rv-ask")
    both = " && ".join(f"({WRITTEN.format(role)}) > LEAST" for role in ("student", "teacher"))
    for least in ("3", "12"):
        tab.page.wait_for_function(both.replace("LEAST", least))
    states = tab.page.locator("#rv-answers .rv-card")
    assert [states.nth(k).get_attribute("data-state") for k in range(3)] == ["running"] * 3
    tab.page.click("#rv-stop")
    tab.page.wait_for_selector('#rv-answers [data-state="stopped"]')
    until(lambda: not service.arena.alone("cpu").locked())
    assert len(tab.page.inner_text("#rv-answers .rv-student .rv-text")) > 12
    tab.page.wait_for_selector("#rv-credit .rv-tokens")

    tab.page.check("#rv-blind input")
    tab.page.click("#rv-ask")
    tab.wait_for_text("#rv-answers", "Both models are answering")
    assert tab.page.locator("#rv-credit .rv-tokens").count() == 0  # the old one is gone while new ones are written
    tab.page.click("#rv-stop")
    tab.wait_for_text("#rv-answers", "nothing to vote on")
    until(lambda: not service.arena.alone("cpu").locked())


def test_a_closed_tab_stops_the_models(visit: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(service.arena, monkeypatch)
    monkeypatch.setattr(service, "max_new_tokens", 4096)
    tab = visit()
    tab.page.click("#rv-ask")
    tab.page.wait_for_selector('#rv-answers [data-state="running"]')
    tab.context.close()
    until(lambda: not service.arena.alone("cpu").locked())


def test_who_waits_sees_the_place(visit: Any, client: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(service.arena, monkeypatch)
    job = client.submit(None, QUESTION, 128, api_name="/compare")
    until(lambda: len(job.outputs()) > 1)
    tab = visit()
    place = "/queue: \\d+\\/\\d+/.test(document.querySelector('#rv-answers').textContent)"
    tab.page.click("#rv-ask")
    tab.page.wait_for_function(place)
    tab.page.click("#rv-stop")
    tab.page.wait_for_function(f"!{place}")
    assert tab.page.is_visible("#rv-answers .rv-steps")  # back to where it was
    tab.page.click("#rv-ask")
    tab.page.wait_for_function(place)
    job.cancel()
    tab.page.wait_for_selector('#rv-answers [data-state="running"]')
    tab.page.click("#rv-stop")
    until(lambda: not service.arena.alone("cpu").locked())
