"""A real headless browser on the other tabs, and on a narrow page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo_helpers import ROLLOUT


def test_an_evaluation_is_browsed(visit: Any) -> None:
    tab = visit()
    tab.page.get_by_role("tab", name="Benchmark").click()
    tab.page.wait_for_selector("#rv-item img")
    assert "50.0" in tab.page.inner_text("#rv-figures table") and tab.page.locator("#rv-figures circle").count() == 2
    tab.page.click("#rv-filter input")
    tab.page.get_by_role("option", name="student wrong, teacher right").click()
    tab.wait_for_text("#rv-item .rv-soft", "1 of 1 ")
    assert "circle" in tab.page.inner_text("#rv-item")
    tab.page.click("#rv-filter input")
    tab.page.get_by_role("option", name="both wrong").click()
    tab.wait_for_text("#rv-item .rv-soft", "1 of 2 ")
    tab.page.fill("#rv-position input[type=number]", "2")
    tab.page.press("#rv-position input[type=number]", "Enter")
    tab.wait_for_text("#rv-item .rv-soft", "2 of 2 ")


def test_a_run_is_followed(visit: Any, readable: Path) -> None:
    run = readable / "followed"
    run.mkdir()
    metrics = run / "metrics.jsonl"
    metrics.write_text('{"step": 0, "validation/accuracy": 0.5}\n')
    tab = visit("dark")
    tab.page.get_by_role("tab", name="Training run").click()
    tab.wait_for_text("#rv-run-page", "50.0")  # the newest run is the one that is shown
    with metrics.open("a") as file:
        file.write('{"step": 7, "validation/accuracy": 0.75}\n')
    (run / "sample_rollouts.jsonl").write_text(json.dumps(ROLLOUT) + "\n")
    tab.wait_for_text("#rv-run-page", "75.0")
    assert tab.page.locator("#rv-run-page .rv-tokens .rv-t").count() == 2


def test_a_narrow_page_does_not_scroll_sideways(visit: Any) -> None:
    tab = visit(width=390)
    tab.page.click("#rv-ask")
    tab.page.wait_for_selector("#rv-credit .rv-tokens")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
