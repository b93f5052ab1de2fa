"""The tabs that look at work on disk: an evaluation's items, and a training run while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo import benchmark, run_view
from demo.components import friendly
from demo.picture import read_picture
from demo.service import Service
from demo.views import benchmark as benchmark_view
from demo.views import run as run_html
from demo.views.markup import notice

PRIVATE: dict[str, Any] = {"api_visibility": "private", "api_name": "page", "show_progress": "minimal"}
REFRESH_SECONDS = 5


@dataclass(frozen=True)
class Lab:
    """Handlers of both tabs."""

    service: Service

    def evaluation(self, directory: str, bench: str) -> benchmark.Evaluation:
        places = self.service.places
        return benchmark.load(places.open(directory, places.evaluations()), bench, places)

    def find_evaluations(self, chosen: str | None) -> Any:
        found = self.service.places.evaluations()
        return _dropdown(found, chosen)

    def find_benches(self, directory: str | None) -> Any:
        if not directory:
            return _dropdown([], None)
        places = self.service.places
        return _dropdown(benchmark.benches_in(places.open(directory, places.evaluations())), None)

    def show(self, directory: str | None, bench: str | None, condition: str) -> tuple[Any, ...]:
        """Figures of the evaluation, and the first item that the filter leaves."""
        if not directory or not bench:
            return _NOTHING_EVALUATED, gr.update(maximum=2, value=1), ""
        evaluation = self.evaluation(directory, bench)
        items = benchmark.picked(evaluation, condition)
        html = benchmark_view.evaluation_view(evaluation)
        slider = gr.update(maximum=max(2, len(items)), value=1, label=f"Item, of {len(items):,}")
        return html, slider, self._item(evaluation, items, 1)

    def item(self, directory: str | None, bench: str | None, condition: str, position: float) -> str:
        if not directory or not bench:
            return ""
        evaluation = self.evaluation(directory, bench)
        return self._item(evaluation, benchmark.picked(evaluation, condition), int(position))

    def _item(self, evaluation: benchmark.Evaluation, items: list[benchmark.Item], position: int) -> str:
        if not items:
            return notice("No item is of this kind.")
        position = min(max(position, 1), len(items))
        item = items[position - 1]
        images = benchmark.images_of(evaluation, item, self.service.places)
        return benchmark_view.item_view(item, position, len(items), images)

    def find_runs(self, chosen: str | None) -> Any:
        return _dropdown(self.service.places.training_runs(), chosen)

    def run(self, directory: str | None, shown: str) -> tuple[Any, Any, str]:
        """The run as it is now, the pictures that it drew at its end, and its stamp; nothing where `shown` is that."""
        if not directory:
            return _NOTHING_TRAINED, gr.update(visible=False), ""
        places = self.service.places
        place = places.open(directory, places.training_runs())
        stamp = run_view.stamp(place, places)
        if stamp == shown:
            return gr.skip(), gr.skip(), stamp
        run = run_view.load(place, places)
        pictures = [(read_picture(path), path.stem) for path in run.plots]
        return run_html.run_page(run), gr.update(value=pictures, visible=bool(pictures)), stamp


_NOTHING_EVALUATED = notice(
    "No evaluation found. Make one with: python -m eval.run --limit 200, or start the page with --read DIR."
)
_NOTHING_TRAINED = notice(
    "No training run found. Start one with: python -m reopold_vl.train, or start the page with --read DIR."
)


def build(service: Service) -> None:
    """Lay out both tabs."""
    lab = Lab(service)
    with gr.Tab("Benchmark") as benchmark_tab:
        _benchmark(lab, benchmark_tab)
    with gr.Tab("Training run") as run_tab:
        _run(lab, run_tab)


def _benchmark(lab: Lab, tab: gr.Tab) -> None:
    with gr.Row():
        directory = gr.Dropdown([], label="Evaluation (a directory of eval.run)", elem_id="rv-evaluation")
        bench = gr.Dropdown([], label="Benchmark")
    figures = gr.HTML(_NOTHING_EVALUATED, elem_id="rv-figures")
    with gr.Row():
        condition = gr.Dropdown(list(benchmark.FILTERS), value="all", label="Show", elem_id="rv-filter")
        position = gr.Slider(1, 2, 1, step=1, label="Item", elem_id="rv-position")
    shown = gr.HTML(elem_id="rv-item")
    chosen = [directory, bench, condition]
    tab.select(lab.find_evaluations, [directory], [directory], **PRIVATE)
    directory.change(friendly(lab.find_benches), [directory], [bench], **PRIVATE)
    for part in (bench, condition):
        part.change(friendly(lab.show), chosen, [figures, position, shown], **PRIVATE)
    position.change(friendly(lab.item), [*chosen, position], shown, trigger_mode="always_last", **PRIVATE)


def _run(lab: Lab, tab: gr.Tab) -> None:
    with gr.Row():
        directory = gr.Dropdown([], label="Run (a directory of reopold_vl.train)", elem_id="rv-run", scale=4)
        follow = gr.Checkbox(label=f"Look again every {REFRESH_SECONDS} seconds", value=True, scale=1)
    shown = gr.HTML(_NOTHING_TRAINED, elem_id="rv-run-page")
    plots = gr.Gallery(
        label="Plots of the finished run",
        columns=3,
        visible=False,
        format="png",
        object_fit="contain",
        buttons=["fullscreen"],
        elem_id="rv-plots",
    )
    timer, stamp = gr.Timer(REFRESH_SECONDS, active=False), gr.State("")
    quiet: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
    tab.select(lab.find_runs, [directory], [directory], **PRIVATE).then(
        lambda wanted: gr.Timer(active=wanted), [follow], [timer], **quiet
    )
    follow.change(lambda wanted: gr.Timer(active=wanted), [follow], [timer], **quiet)
    read = friendly(lab.run), [directory, stamp], [shown, plots, stamp]
    directory.change(*read, **PRIVATE)
    timer.tick(*read, trigger_mode="once", **quiet)


def _dropdown(found: list[str], chosen: str | None) -> Any:
    """Choices by their last two names; the first one is chosen unless an earlier choice still exists."""
    choices = [("/".join(Path(place).parts[-2:]), place) for place in found]
    return gr.update(choices=choices, value=chosen if chosen in found else found[0] if found else None)
