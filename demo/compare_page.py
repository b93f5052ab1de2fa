"""The layout of the first tab and what its buttons do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from demo import examples
from demo.compare_tab import PICTURE, CompareTab, board
from demo.components import drawing_pad, example_tiles, friendly, picture
from demo.contenders import Arena, Role
from demo.picture import MAX_QUESTION_CHARACTERS
from demo.service import Service
from demo.sketch import new_pad
from demo.views import answers, credit, sight
from demo.views.gallery import gallery_view
from reopold_vl.types import VisualSample

MODELS = "models"  # the queue of everything that calls a model: one request at a time
STATE_SECONDS = 3600  # a session that is idle for longer loses its answers
LAMBDA, BETA = 0.3, 0.2  # the paper's
PRIVATE: dict[str, Any] = {"api_visibility": "private", "api_name": "page"}  # names are for the endpoints
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", **PRIVATE}


def build(service: Service, default_tokens: int) -> None:
    """Lay out the tab: what is asked on the left, what comes of it on the right."""
    tab = CompareTab(service)
    first = examples.gallery()[0]
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            parts = _inputs(service, default_tokens, first)
        with gr.Column(scale=9, min_width=300):
            parts |= _results(service.arena)
    for name, value in (("known", first), ("answered", None), ("ballot", None)):
        parts[name] = gr.State(value, time_to_live=STATE_SECONDS)
    _wire_answers(tab, parts)
    _wire_examples(tab, parts)


def _wire_answers(tab: CompareTab, parts: dict[str, Any]) -> None:
    """What asking, stopping, the sliders, the vision check and voting do."""
    cards, answered, coloured, seen = (parts[name] for name in ("cards", "answered", "coloured", "seen"))
    settings = [parts[name] for name in ("temperature", "top_p", "seed", "max_new_tokens", "blind")]
    lights = parts["lights"]
    seen_so_far = [answered, parts["ballot"]]
    asked = gr.on(
        [parts["ask"].click, parts["question"].submit],
        friendly(tab.ask),
        [parts["image"], parts["question"], *settings, *lights, parts["known"]],
        [cards, answered, parts["ballot"], coloured, seen, parts["ballots"], parts["revealed"]],
        concurrency_id=MODELS,
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=cards,
        trigger_mode="once",
        **PRIVATE,
    )
    parts["stop"].click(None, None, None, cancels=[asked], **QUICK)
    stops = gr.Number(0, visible="hidden")  # a state would not tell the page of its change
    asked.then(tab.stopped, stops, [cards, answered, stops], **QUICK)
    scoring = {"concurrency_id": MODELS, "show_progress": "minimal", **PRIVATE}
    stops.change(friendly(tab.recolour), [*seen_so_far, *lights], coloured, **scoring)
    for light in lights:
        light.change(friendly(tab.recolour), [*seen_so_far, *lights], coloured, trigger_mode="always_last", **QUICK)
    parts["check"].click(friendly(tab.check_sight), [*seen_so_far, parts["looker"]], seen, **scoring)
    uncovered = [cards, parts["revealed"], coloured, seen, parts["ballot"], parts["ballots"]]
    for choice, button in parts["votes"].items():
        button.click(friendly(tab.vote), [gr.State(choice), *seen_so_far, *lights], uncovered, **QUICK)


def _wire_examples(tab: CompareTab, parts: dict[str, Any]) -> None:
    """Examples and drawings become the picture and the question."""
    image, question = parts["image"], parts["question"]
    chosen = [image, question, parts["known"], parts["sources"]]
    parts["surprise"].click(tab.surprise, None, chosen, **QUICK)
    parts["gallery"].click(tab.choose, None, chosen, **QUICK)
    grid = gr.State(parts["grid"], time_to_live=STATE_SECONDS)
    for drawn in (parts["pad"].input, parts["drawing"].select):  # what one sees is what is asked about
        drawn(friendly(tab.drawn), [parts["pad"], grid], [image, question], **QUICK)
    parts["new_grid"].click(tab.new_grid, None, [parts["pad"], grid, image, question], **QUICK)


def _results(arena: Arena) -> dict[str, Any]:
    """The cards, the vote, and below them credit and vision check."""
    parts: dict[str, Any] = {"cards": gr.HTML(answers.idle(), elem_id="rv-answers")}
    with gr.Row(visible=False, elem_id="rv-vote") as parts["ballots"]:
        labels = (("A", "A is better"), ("tie", "Equally good"), ("B", "B is better"))
        parts["votes"] = {choice: gr.Button(label, size="sm") for choice, label in labels}
    parts["revealed"] = gr.HTML(visible=False, elem_id="rv-revealed")
    with gr.Tabs():
        with gr.Tab("Credit of each token"):
            parts["lights"] = _credit_controls(arena)
            parts["coloured"] = gr.HTML(credit.idle(), elem_id="rv-credit")
        with gr.Tab("Vision check"):
            with gr.Row():
                choices = _named(arena, arena.roles)
                parts["looker"] = gr.Radio(choices, value="student", label="Whose answer", scale=3)
                parts["check"] = gr.Button("Check", elem_id="rv-check", scale=1, variant="primary")
            parts["seen"] = gr.HTML(sight.idle(), elem_id="rv-sight")
    return parts


def _inputs(service: Service, default_tokens: int, first: VisualSample) -> dict[str, Any]:
    """Picture or drawing, question and buttons first, while the answers are in sight; then examples and settings."""
    parts: dict[str, Any] = {"grid": new_pad(0)}
    with gr.Tabs() as parts["sources"]:
        with gr.Tab("Picture", id=PICTURE):
            parts["image"] = picture(
                first.images[0],
                label="Picture", show_label=False, sources=["upload", "webcam", "clipboard"], height=230,
                elem_id="rv-picture", buttons=["fullscreen"],
            )  # fmt: skip
        with gr.Tab("Draw digits") as parts["drawing"]:
            parts["pad"] = drawing_pad(board(parts["grid"]))
            parts["new_grid"] = gr.Button("Another grid", size="sm")
    parts["question"] = gr.Textbox(
        first.question,
        label="Question", placeholder="What is in the picture?", lines=1, max_lines=6, elem_id="rv-question",
        max_length=MAX_QUESTION_CHARACTERS,
    )  # fmt: skip
    with gr.Row():
        label = "Ask both" if len(service.arena.contenders) == 2 else "Ask all three"
        parts["ask"] = gr.Button(label, variant="primary", elem_id="rv-ask", min_width=120, scale=3)
        parts["stop"] = gr.Button("Stop", elem_id="rv-stop", min_width=70, scale=1)
    parts["blind"] = gr.Checkbox(
        label="Blind: hide whose answer is whose, and let me vote", value=False, elem_id="rv-blind"
    )
    parts["gallery"] = example_tiles(gallery_view(examples.gallery()))
    parts["surprise"] = gr.Button("Surprise me with another one", elem_id="rv-surprise", size="sm")
    with gr.Accordion("Sampling", open=False):
        parts["temperature"] = gr.Slider(0, 2, 0, step=0.1, label="Temperature", info="0 is greedy")
        parts["top_p"] = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p")
        parts["max_new_tokens"] = gr.Slider(
            1, service.max_new_tokens, default_tokens, step=1, label="Longest answer (tokens)"
        )
        parts["seed"] = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed")
    return parts


def _credit_controls(arena: Arena) -> list[Any]:
    """Sliders for lambda and beta, and whose answer; the last is shown where there is a choice."""
    with gr.Row():
        mixture = gr.Slider(
            0.01, 0.99, LAMBDA, step=0.01, label="λ: the floor is log λ / (1 − λ)", elem_id="rv-lambda", min_width=230
        )
        share = gr.Slider(
            0.01, 1, BETA, step=0.01, label="β: share of tokens kept when refining",
            elem_id="rv-beta", min_width=230,
        )  # fmt: skip
        role = gr.Radio(
            _named(arena, arena.students), value="student", label="Whose answer", visible=len(arena.students) > 1,
            scale=1,
        )  # fmt: skip
    return [mixture, share, role]


def _named(arena: Arena, roles: Sequence[Role]) -> list[tuple[str, str]]:
    return [(arena[role].title, role) for role in roles]
