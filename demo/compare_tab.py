"""What happens on the first tab; `compare_page.py` lays it out."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from demo import examples, sketch
from demo.credit import recolour
from demo.service import Answered, Service
from demo.views import answers as answers_view
from demo.views import credit as credit_view
from demo.views import sight as sight_view
from demo.views import vote as vote_view
from demo.views.markup import notice
from reopold_vl.report.page import data_uri
from reopold_vl.types import VisualSample


@dataclass
class CompareTab:
    """Handlers of the tab; `answering` holds what each session's running question has so far, for its stop button."""

    service: Service
    answering: dict[str, Answered] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(
        self,
        image: str | None,
        question: str,
        temperature: float,
        top_p: float,
        seed: float,
        max_new_tokens: float,
        blind: bool,
        mixture: float,
        entropy_share: float,
        role: str,
        known: VisualSample | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Stream the answers, then the credit (or, in a blind comparison, the ballot)."""
        sampling = self.service.sampling(temperature, top_p, seed, max_new_tokens)
        sample = self.service.sample(image, question, known)
        session = request.session_hash or ""
        answered = None
        hidden = gr.update(visible=False)
        try:
            for answered in self.service.compare(sample, sampling):
                with self._lock:
                    self.answering[session] = answered
                shown = self._shown(answered, blind)
                yield shown, gr.skip(), gr.skip(), gr.skip(), gr.skip(), hidden, hidden
        finally:
            with self._lock:
                self.answering.pop(session, None)
        assert answered is not None
        if blind and all(column.state != "failed" for column in answered.columns):
            name, ballot = self.service.ballot(answered)
            cards = answers_view.blind_view(ballot.columns, sample)
            covered = notice("Covered until you have voted.")
            yield cards, answered, name, covered, covered, gr.update(visible=True), hidden
            return
        credit = self._credit(answered, role, mixture, entropy_share)
        yield self._shown(answered, False), answered, "", credit, sight_view.idle(), hidden, hidden

    def stop(self, blind: bool, request: gr.Request) -> tuple[Any, Any]:
        """Leave on the page what was there when the answers were stopped."""
        with self._lock:
            answered = self.answering.pop(request.session_hash or "", None)
        if answered is None:
            return gr.skip(), gr.skip()
        stopped = answered.stopped()
        return self._shown(stopped, blind), stopped

    def recolour(self, answered: Answered | None, mixture: float, entropy_share: float, role: str) -> str:
        """The same numbers at another lambda and beta."""
        if answered is None:
            return credit_view.idle()
        return self._credit(answered, role, mixture, entropy_share)

    def check_sight(self, answered: Answered | None, role: str) -> str:
        """Score the answer again with less to see."""
        if answered is None:
            return sight_view.idle()
        return sight_view.sight_view(self.service.vision(answered, role))

    def vote(
        self, choice: str, name: str, answered: Answered | None, mixture: float, entropy_share: float, role: str
    ) -> tuple[Any, ...]:
        """Store the vote, then uncover everything."""
        ballot, votes = self.service.vote(name, choice)
        assert answered is not None
        revealed = vote_view.reveal_view(self.service.arena, ballot, choice, votes)
        cards = self._shown(answered, False)
        credit = self._credit(answered, role, mixture, entropy_share)
        return cards, gr.update(value=revealed, visible=True), credit, sight_view.idle(), "", gr.update(visible=False)

    def surprise(self) -> tuple[Any, str, VisualSample]:
        sample = examples.surprise()
        return sample.images[0], sample.question, sample

    def choose(self, event: gr.EventData) -> tuple[Any, str, VisualSample]:
        """The example that was clicked on."""
        samples = examples.gallery()
        index = getattr(event, "index", 0)
        sample = samples[index if index in range(len(samples)) else 0]
        return sample.images[0], sample.question, sample

    def new_grid(self) -> tuple[Any, sketch.Pad, str]:
        pad = sketch.new_pad(random.SystemRandom().randrange(examples.NUM_HELD_OUT))
        return gr.HTML(value="[]", base=data_uri(pad.image.resize((672, 672), 0))), pad, pad.question

    def drawn(self, strokes: str, pad: sketch.Pad) -> tuple[Any, str]:
        """The grid with what was drawn, as the picture to ask about."""
        return sketch.draw_on(pad, sketch.parse_strokes(strokes)), pad.question

    def _shown(self, answered: Answered, blind: bool) -> str:
        if blind:
            return notice("Both models are answering. The answers appear together, so that speed gives nothing away.")
        return answers_view.columns_view(self.service.arena, answered.columns, answered.sample)

    def _credit(self, answered: Answered, role: str, mixture: float, entropy_share: float) -> str:
        try:
            credit = answered.credits.get(role) or self.service.credit(answered, role)
        except ValueError as error:
            return notice(error)
        answered.credits[role] = credit
        return credit_view.credit_view(credit, recolour(credit, mixture, entropy_share))
