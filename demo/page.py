"""The whole page: header, three tabs, and the named endpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported

import gradio as gr
from starlette.middleware import Middleware

from demo import api, compare_page, lab_page
from demo.components import theme
from demo.contenders import Arena
from demo.examples import question_forms
from demo.guard import Guard
from demo.picture import MAX_UPLOAD_BYTES
from demo.service import Service
from demo.views.markup import parameters, text

HERE = Path(__file__).parent
TITLE = "Student and teacher, side by side"
MAX_SESSIONS = 128  # whose last answers are kept: up to some 30 MB each, where the pictures are large


def build_page(service: Service, *, default_tokens: int) -> gr.Blocks:
    """All of the page, ready for `launch_settings`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as page:
        gr.HTML(_header(service.arena), elem_id="rv-header")
        with gr.Tabs():
            with gr.Tab("Compare"):
                compare_page.build(service, default_tokens)
            lab_page.build(service)
        api.register(service, default_tokens)
    page.queue(max_size=256, default_concurrency_limit=8)
    return page


def launch_settings() -> dict[str, Any]:
    """Arguments of `launch` that belong to the page: looks, limits, and the guard before it."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return {
        "theme": theme(),
        "css_paths": [HERE / "style.css"],
        "head": f"<script>{script}</script>",
        "max_file_size": MAX_UPLOAD_BYTES,
        "app_kwargs": {"middleware": [Middleware(Guard)]},
        "footer_links": ["api"],
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "run_history": False,  # it talks to the Hub for a visitor
        "state_session_capacity": MAX_SESSIONS,
        "show_error": True,
        "allowed_paths": [],
    }


def _header(arena: Arena) -> str:
    chips = "".join(
        f'<span class="rv-chip rv-{contender.role}"><b>{contender.title}</b> {text(contender.name)} · '
        f"{parameters(contender.parameters)}</span>"
        for contender in arena.contenders
    )
    return (
        f'<div class="rv-head"><h1>{TITLE}</h1><p>A small vision-language model answers next to the large one that '
        "teaches it; below, what on-policy distillation sees: whether the teacher would have written each of the "
        f"student&rsquo;s tokens.</p><div>{chips}</div>{_embedded_note() if arena.embedded else ''}</div>"
    )


def _embedded_note() -> str:
    forms = "".join(f"<li>{text(form)}</li>" for form in question_forms())
    return (
        '<details class="rv-note"><summary>The models with a zoo: name are tiny. They ship with the package, and they '
        "have seen one world only: 3 × 3 grids of coloured shapes and handwritten digits. A photo or a free question "
        "gets you nonsense from them (which is fun once). <u>What can I ask?</u></summary>"
        f"<p>Eleven kinds of questions, in these words:</p><ul>{forms}</ul>"
        "<p>For models that know more: <code>python -m demo.app --student DIR --teacher DIR</code></p></details>"
    )
