"""A teacher server as a column of the page: it streams its answers and scores the student's."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demo.contenders import Contender
from demo.errors import DemoError

if TYPE_CHECKING:
    from reopold_vl.models import VisionLanguageModel
    from reopold_vl.teachers import Teacher
    from reopold_vl.teachers.server import ServerTeacher
    from reopold_vl.types import Rollout, VisualSample

TIMEOUT_SECONDS, RETRIES = 120.0, 1  # a visitor waits


@dataclass(frozen=True)
class RemoteContender(Contender):
    """The teacher's column. `model` is the student's, whose tokenizer the server's is: `connect` has compared them."""

    server: ServerTeacher = field(kw_only=True)

    @property
    def path(self) -> str:
        return str(self.server.info["model"])  # not its address, which is none of a visitor's business

    @property
    def parameters(self) -> int:
        return int(self.server.info["num_parameters"])

    @property
    def device(self) -> str:
        return "teacher server"

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.server.eos_ids

    @property
    def teacher(self) -> Teacher:
        return self.server

    def warm_up(self) -> None:
        """Nothing: the server was there before the page."""

    def stream(self, sample: VisualSample, **settings: Any) -> Generator[Rollout, None, None]:
        """The growing answer. Raises DemoError where the server fails."""
        import torch

        from reopold_vl.types import Rollout

        prompt = self.model.encoder(sample)
        ids: list[int] = []
        with self._clearly():
            for event in self.server.stream(sample, **settings):
                if "token_id" in event:
                    ids.append(int(event["token_id"]))
                    unknown = torch.zeros(len(ids))
                    yield Rollout(prompt, torch.tensor(ids), unknown, unknown, "length")

    def score(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Log-probs of each rollout's tokens. Raises DemoError where the server fails."""
        with self._clearly():
            return super().score(rollouts)

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        """Errors for a visitor: they name the teacher server, not its address."""
        from reopold_vl.teachers import TeacherError

        try:
            yield
        except TeacherError as error:
            address = re.escape(self.server.connection.url) + r"(/v1/\w+)?"
            raise DemoError(re.sub(address, "the teacher server", str(error))) from error


def connected(url: str, student: VisionLanguageModel) -> RemoteContender:
    """The teacher at `url`; raises TeacherError where there is none for this student."""
    from reopold_vl.config.teacher import TOKEN_ENV
    from reopold_vl.teachers.server import connect

    token = os.environ.get(TOKEN_ENV)
    patience = {"timeout_seconds": TIMEOUT_SECONDS, "retries": RETRIES}
    return RemoteContender("teacher", student, server=connect(url, encoder=student.encoder, token=token, **patience))
