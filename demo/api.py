"""Named endpoints for programs: everything that the page can do, as plain JSON (`gradio_client`, or HTTP)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo import benchmark, credit, examples, run_view, sketch, vision
from demo.components import friendly, picture
from demo.service import Answered, Service, columns_json, tally_json


@dataclass(frozen=True)
class Endpoints:
    """One method for each endpoint."""

    service: Service

    def models(self) -> list[dict[str, Any]]:
        """The models on the page."""
        return [
            {"role": c.role, "model": c.name, "parameters": c.parameters, "device": c.device}
            for c in self.service.arena.contenders
        ]

    def compare(
        self,
        image: str | None,
        question: str,
        max_new_tokens: float = 56,
        temperature: float = 0,
        top_p: float = 1,
        seed: float = 0,
    ) -> Iterator[dict[str, Any]]:
        """All models answer; streams the answers so far."""
        sampling = self.service.sampling(temperature, top_p, seed, max_new_tokens)
        sample = self.service.sample(image, question)
        for answered in self.service.compare(sample, sampling):
            yield columns_json(self.service.arena, answered.columns, sample)

    def credit(
        self,
        image: str | None,
        question: str,
        max_new_tokens: float = 56,
        temperature: float = 0,
        top_p: float = 1,
        seed: float = 0,
        mixture: float = 0.3,
        entropy_share: float = 0.2,
        model: str = "student",
    ) -> dict[str, Any]:
        """A student's answer, and for each of its tokens R, both log-probs, entropy, clipping and both masks."""
        answered = self._answered(model, image, question, temperature, top_p, seed, max_new_tokens)
        seen = self.service.credit(answered, model)
        return credit.as_json(seen, credit.recolour(seen, mixture, entropy_share))

    def recolour(self, scored: dict[str, Any], mixture: float = 0.3, entropy_share: float = 0.2) -> dict[str, Any]:
        """What `credit` returned, at another lambda and beta; calls no model."""
        seen = credit.from_json(scored)
        return credit.as_json(seen, credit.recolour(seen, mixture, entropy_share))

    def vision(
        self,
        image: str | None,
        question: str,
        max_new_tokens: float = 56,
        temperature: float = 0,
        top_p: float = 1,
        seed: float = 0,
        model: str = "student",
    ) -> dict[str, Any]:
        """A model's answer, and what its tokens' log-probs would be with the picture blurred and removed."""
        answered = self._answered(model, image, question, temperature, top_p, seed, max_new_tokens)
        return vision.as_json(self.service.vision(answered, model))

    def _answered(self, model: str, image: str | None, question: str, *settings: float) -> Answered:
        sampling = self.service.sampling(*settings)
        return self.service.answer(model, self.service.sample(image, question), sampling)

    def blind(
        self,
        image: str | None,
        question: str,
        max_new_tokens: float = 56,
        temperature: float = 0,
        top_p: float = 1,
        seed: float = 0,
    ) -> dict[str, Any]:
        """Student's and teacher's answers as A and B by chance, with the ballot to vote with."""
        sampling = self.service.sampling(temperature, top_p, seed, max_new_tokens)
        *_, answered = self.service.compare(self.service.sample(image, question), sampling)
        name, ballot = self.service.ballot(answered)
        return {"ballot": name, "A": ballot.columns[0].text, "B": ballot.columns[1].text}

    def vote(self, ballot: str, choice: str) -> dict[str, Any]:
        """Vote A, B or tie on a ballot; tells whose answers they were, and the tally."""
        shown, votes = self.service.vote(ballot, choice)
        return {"A": shown.order[0], "B": shown.order[1], "tally": tally_json(votes)}

    def tally(self) -> dict[str, Any]:
        """All votes so far."""
        return tally_json(self.service.tally())

    def surprise(self) -> tuple[Any, str, str]:
        """A held-out problem of the embedded benchmark: picture, question, gold answer."""
        sample = examples.surprise()
        return sample.images[0], sample.question, sample.answer or ""

    def sketch(self, strokes: Any, grid: float = 0) -> tuple[Any, str]:
        """Strokes ([[x, y], ...] each, 0 to 1) on grid number `grid`: the picture that the models see, its question."""
        if isinstance(grid, bool) or grid not in range(examples.NUM_HELD_OUT):
            raise ValueError(f"grid is {grid!r:.40}: allowed are whole numbers from 0 to {examples.NUM_HELD_OUT - 1}")
        pad = sketch.new_pad(int(grid))
        return sketch.draw_on(pad, sketch.parse_strokes(strokes)), pad.question

    def evaluations(self) -> dict[str, list[str]]:
        """The evaluations that may be read, each with its benchmarks."""
        places = self.service.places
        return {name: benchmark.benches_in(places.open(name, [name])) for name in places.evaluations()}

    def evaluation(self, directory: str, bench: str, condition: str = "all", position: float = 1) -> dict[str, Any]:
        """Figures of an evaluation, how many items the filter leaves, and the one at `position` (from 1)."""
        places = self.service.places
        loaded = benchmark.load(places.open(directory, places.evaluations()), bench, places)
        return benchmark.as_json(loaded, condition, position)

    def runs(self) -> list[str]:
        """The training runs that may be read, newest first."""
        return self.service.places.training_runs()

    def run(self, directory: str) -> dict[str, Any]:
        """A training run's metrics, summary and newest sample rollouts."""
        places = self.service.places
        return run_view.as_json(run_view.load(places.open(directory, places.training_runs()), places))


def register(service: Service, default_tokens: int) -> None:
    """Bind every method to an endpoint of its name, on hidden components.

    The page's own sliders would refuse a value without naming it.
    """
    ends = Endpoints(service)
    calls_models = {"concurrency_id": "models", "concurrency_limit": 1}
    with gr.Row(visible=False):
        out = gr.JSON(label="result")
        asked = [picture(label="image"), gr.Textbox(label="question")]
        asked += [
            gr.Number(value, label=label)
            for label, value in (("max_new_tokens", default_tokens), ("temperature", 0), ("top_p", 1), ("seed", 0))
        ]
        scored, strokes = gr.JSON(label="scored"), gr.JSON(label="strokes")
        mixture, share = gr.Number(0.3, label="lambda"), gr.Number(0.2, label="beta")
        model, ballot, choice = (
            gr.Textbox("student", label="model"),
            gr.Textbox(label="ballot"),
            gr.Textbox(label="choice"),
        )
        directory, bench = gr.Textbox(label="directory"), gr.Textbox(label="benchmark")
        condition, position = gr.Textbox("all", label="filter"), gr.Number(1, label="position")
        grid, words, gold = gr.Number(0, label="grid"), gr.Textbox(label="question"), gr.Textbox(label="gold answer")
        shown = gr.Image(label="picture", format="png")
        trigger = gr.Button()
        table: list[tuple[Any, list[Any], list[Any], dict[str, Any]]] = [
            (ends.models, [], [out], {}),
            (ends.compare, asked, [out], calls_models),
            (ends.credit, [*asked, mixture, share, model], [out], calls_models),
            (ends.recolour, [scored, mixture, share], [out], {}),
            (ends.vision, [*asked, model], [out], calls_models),
            (ends.blind, asked, [out], calls_models),
            (ends.vote, [ballot, choice], [out], {}),
            (ends.tally, [], [out], {}),
            (ends.surprise, [], [shown, words, gold], {}),
            (ends.sketch, [strokes, grid], [shown, words], {}),
            (ends.evaluations, [], [out], {}),
            (ends.evaluation, [directory, bench, condition, position], [out], {}),
            (ends.runs, [], [out], {}),
            (ends.run, [directory], [out], {}),
        ]
        for method, ins, outs, limits in table:
            trigger.click(friendly(method), ins, outs, api_name=method.__name__, **limits)
