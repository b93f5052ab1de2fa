"""Fifty visitors at once: all are answered, none gets another's answer, and memory stays where it was."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demo.service import Service

USERS = 50
TOKENS = 8  # of an answer: it is the visitors that are many
MAX_GROWTH_MB = 80


def resident_mb() -> float:
    """Resident memory of this process, in which the page runs."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    pytest.skip("needs /proc/self/status")


def test_fifty_users(address: str, service: Service, tmp_path: Path, record_property: Any) -> None:
    gradio_client = pytest.importorskip("gradio_client")
    from demo.examples import held_out

    files = []
    for number in range(USERS):
        held_out(number).images[0].save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
    clients = [gradio_client.Client(address, verbose=False) for _ in range(USERS)]

    def visit(number: int) -> tuple[float, dict[str, Any]]:
        began = time.monotonic()
        upload = gradio_client.handle_file(str(files[number]))
        shown = clients[number].predict(upload, held_out(number).question, TOKENS, api_name="/compare")
        return time.monotonic() - began, shown

    with ThreadPoolExecutor(USERS) as pool:
        list(pool.map(visit, range(USERS)))  # the first wave fills caches
        gc.collect()
        before, began = resident_mb(), time.monotonic()
        wave = list(pool.map(visit, range(USERS)))
        seconds = time.monotonic() - began
    gc.collect()
    growth = resident_mb() - before

    waits = sorted(wait for wait, _ in wave)
    sampling = service.sampling(0, 1, 0, TOKENS)
    for number, (_, shown) in enumerate(wave):
        assert shown["question"] == held_out(number).question
        assert [column["state"] for column in shown["columns"]] == ["length"] * 3
        if number % 5 == 0:
            alone = service.answer("teacher", held_out(number), sampling)
            assert shown["columns"][2]["text"] == alone.columns[0].text
    figures = {
        "requests_per_second": round(USERS / seconds, 2),
        "median_wait": round(waits[USERS // 2], 2),
        "longest_wait": round(waits[-1], 2),
        "growth_mb": round(growth, 1),
    }
    record_property("load", figures)
    print(figures)
    assert growth < MAX_GROWTH_MB
