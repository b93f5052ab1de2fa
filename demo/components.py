"""Components of the page: a picture that is not read too early, a pad to draw digits on, and the theme."""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.data_classes import ImageData

HERE = Path(__file__).parent


def picture(value: Any = None, **settings: Any) -> gr.Image:
    """An image component whose value is the path of the upload as it came; `demo.picture` looks into it.

    The component's own reading would fail on a damaged file with a stack trace, and decode before any limit is known.
    It is replaced on the instance: a subclass would make the framework write a stub file beside this one.
    """
    component = gr.Image(value, type="filepath", image_mode=None, format="png", **settings)
    component.preprocess = functools.partial(_upload_path, component.GRADIO_CACHE)
    return component


def _upload_path(cache: str, payload: ImageData | None) -> str | None:
    if payload is None:
        return None
    if payload.url and payload.url.startswith("data:"):
        try:
            return processing_utils.save_base64_to_cache(payload.url, cache_dir=cache)
        except (ValueError, OSError):
            raise gr.Error("picture: the data URI cannot be read", print_exception=False) from None
    return payload.path


def friendly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show a ValueError to the visitor as the one line that it is; it may quote foreign text, so it is escaped."""

    def shown(error: ValueError) -> gr.Error:
        message = html.escape(" ".join(str(error).split())[:600], quote=False)
        return gr.Error(message, duration=8, print_exception=False)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*values: Any, **named: Any) -> Iterator[Any]:
            try:
                yield from function(*values, **named)
            except ValueError as error:
                raise shown(error) from error

        return stream

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except ValueError as error:
            raise shown(error) from error

    return call


def drawing_pad(base: str) -> gr.HTML:
    """A canvas over the picture `base` (data URI); its value is the strokes as JSON, changed after every stroke."""
    return gr.HTML(
        value="[]",
        base=base,
        html_template=(HERE / "pad.html").read_text(encoding="utf-8"),
        js_on_load=(HERE / "pad.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="rv-pad",
    )


def example_tiles(tiles: str) -> gr.HTML:
    """Pictures to choose from, HTML with one `data-index` each; a click carries the index as `event.index`."""
    choose = """
        element.addEventListener("click", (event) => {
          const tile = event.target.closest("[data-index]");
          if (tile) trigger("click", { index: Number(tile.dataset.index) });
        });"""
    return gr.HTML(tiles, js_on_load=choose, elem_id="rv-gallery", apply_default_css=False)


def theme() -> gr.themes.Base:
    """Quiet labels, readable secondary text, system fonts only: nothing is fetched."""
    plain = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    return plain.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0d1219",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_secondary_dark="#131a24",
        block_background_fill="white",
        block_background_fill_dark="#131a24",
        block_border_color="*neutral_200",
        block_border_color_dark="#253041",
        border_color_primary_dark="#253041",
        block_shadow="none",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        block_title_text_weight="500",
        input_background_fill_dark="#0d1219",
        button_primary_background_fill="#0072b2",
        button_primary_background_fill_hover="#005f95",
        button_primary_background_fill_dark="#0072b2",
        button_primary_background_fill_hover_dark="#2387c4",
        button_primary_text_color="white",
        slider_color="#0072b2",
        slider_color_dark="#5db4ee",
    )
