"""What happens on the first tab; `compare_page.py` lays it out."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from demo import examples, sketch
from demo.credit import recolour
from demo.errors import DemoError
from demo.service import Answered, Service
from demo.views import answers as answers_view
from demo.views import credit as credit_view
from demo.views import sight as sight_view
from demo.views import vote as vote_view
from demo.views.markup import notice
from reopold_vl.report.page import data_uri
from reopold_vl.types import VisualSample

STOP_SECONDS = 5.0
MAX_RUNNING = 32
PICTURE = "picture"  # the tab of the picture, where the other one is the drawing
_BLIND = notice("Both models are answering. The answers appear together, so that speed gives nothing away.")
_COVERED = notice("Covered until you have voted.")
_STOPPED = notice("Stopped before both had answered, so there is nothing to vote on.")


@dataclass
class Running:
    """A question whose answers are written: what there is of them, and whether more may come."""

    blind: bool
    answered: Answered | None = None
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass
class CompareTab:
    """Handlers of the tab.

    `running` holds what the newest sessions ask just now, in case that it is stopped. `ballot` is the name of a vote
    that is still open; as long as there is one, nothing may tell whose answer is whose.
    """

    service: Service
    running: OrderedDict[str, Running] = field(default_factory=OrderedDict)

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
        """Stream the answers, then the credit (or, in a blind comparison, the ballot).

        All that the page shows below the answers later is scored here, so that no slider and no vote calls a model.
        """
        sampling = self.service.sampling(temperature, top_p, seed, max_new_tokens)
        sample = self.service.sample(image, question, known)
        running = self.running[request.session_hash or ""] = Running(blind)
        while len(self.running) > MAX_RUNNING:  # of pages that were closed, nobody asks what was left
            self.running.popitem(last=False)
        hidden = gr.update(visible=False)
        below: tuple[Any, ...] = (None, "", credit_view.idle(), sight_view.idle())  # what belongs to the last question
        try:
            with closing(self.service.compare(sample, sampling)) as frames:
                for answered in frames:
                    running.answered = answered
                    yield _BLIND if blind else self._cards(answered), *below, hidden, hidden
                    below = (gr.skip(),) * len(below)
        except ValueError:
            self.running.pop(request.session_hash or "", None)
            raise
        finally:
            running.ended.set()
        self.running.pop(request.session_hash or "", None)
        answered = running.answered
        assert answered is not None
        credits = {
            student: self._credit(answered, student, mixture, entropy_share) for student in self.service.arena.students
        }
        if blind and all(column.state != "failed" for column in answered.columns):
            ballot, covered = self.service.ballot(answered)
            cards = answers_view.blind_view(covered.columns, sample)
            yield cards, answered, ballot, _COVERED, _COVERED, gr.update(visible=True), hidden
            return
        yield self._cards(answered), answered, "", credits[role], sight_view.idle(), hidden, hidden

    def stopped(self, count: int, request: gr.Request) -> tuple[Any, Any, Any]:
        """After the question, whatever ended it: where that was the stop button, leave what was written until then.

        `count` counts the stopped ones; when it changes, what there is of the answer gets its credit.
        """
        running = self.running.pop(request.session_hash or "", None)
        if running is None or running.answered is None:
            return gr.skip(), gr.skip(), gr.skip()
        running.ended.wait(STOP_SECONDS)  # for its last token
        if running.blind:
            return _STOPPED, None, gr.skip()
        answered = running.answered.stopped()
        return self._cards(answered), answered, count + 1

    def recolour(
        self, answered: Answered | None, ballot: str | None, mixture: float, entropy_share: float, role: str
    ) -> str:
        """The same numbers at another lambda and beta."""
        if ballot:
            return _COVERED
        if answered is None:
            return credit_view.idle()
        return self._credit(answered, role, mixture, entropy_share)

    def check_sight(self, answered: Answered | None, ballot: str | None, role: str) -> str:
        """Score the answer again with less to see."""
        if ballot:
            return _COVERED
        if answered is None:
            return sight_view.idle()
        return sight_view.sight_view(self.service.vision(answered, role))

    def vote(
        self,
        choice: str,
        answered: Answered | None,
        ballot: str | None,
        mixture: float,
        entropy_share: float,
        role: str,
    ) -> tuple[Any, ...]:
        """Store the vote, then uncover everything."""
        if answered is None:
            raise DemoError("vote: this comparison is too old; ask again")
        covered, votes = self.service.vote(ballot, choice)
        revealed = vote_view.reveal_view(self.service.arena, covered, choice, votes)
        cards = self._cards(answered)
        credit = self._credit(answered, role, mixture, entropy_share)
        return cards, gr.update(value=revealed, visible=True), credit, sight_view.idle(), "", gr.update(visible=False)

    def surprise(self) -> tuple[Any, ...]:
        return _asked(examples.surprise())

    def choose(self, event: gr.EventData) -> tuple[Any, ...]:
        """The example that was clicked on."""
        samples = examples.gallery()
        index = getattr(event, "index", 0)
        return _asked(samples[index if index in range(len(samples)) else 0])

    def new_grid(self) -> tuple[Any, ...]:
        pad = sketch.new_pad(random.SystemRandom().randrange(examples.NUM_HELD_OUT))
        return gr.HTML(value="[]", base=board(pad)), pad, pad.image, pad.question

    def drawn(self, strokes: str, pad: sketch.Pad) -> tuple[Any, str]:
        """The grid with what was drawn, as the picture to ask about."""
        return sketch.draw_on(pad, sketch.parse_strokes(strokes)), pad.question

    def _cards(self, answered: Answered) -> str:
        return answers_view.columns_view(self.service.arena, answered.columns, answered.sample)

    def _credit(self, answered: Answered, role: str, mixture: float, entropy_share: float) -> str:
        try:
            credit = self.service.credit(answered, role)
        except ValueError as error:
            return notice(error)
        return credit_view.credit_view(credit, recolour(credit, mixture, entropy_share))


def board(pad: sketch.Pad) -> str:
    """The pad's grid as a data URI, large enough to draw on."""
    return data_uri(pad.image.resize((672, 672), 0))


def _asked(sample: VisualSample) -> tuple[Any, ...]:
    """Picture, question and the sample itself, and the tab that shows the picture."""
    return sample.images[0], sample.question, sample, gr.Tabs(selected=PICTURE)
