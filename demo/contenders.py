"""The models on the page, loaded once, and the one rule about them: one model call at a time on a device."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demo.errors import DemoError

if TYPE_CHECKING:
    from reopold_vl.models import VisionLanguageModel
    from reopold_vl.teachers import Teacher
    from reopold_vl.types import Rollout, VisualSample

Role = Literal["student", "before", "teacher"]
TITLES: dict[Role, str] = {"student": "Student", "before": "Student before training", "teacher": "Teacher"}


@dataclass(frozen=True)
class Contender:
    """One column of the page."""

    role: Role
    model: VisionLanguageModel

    @property
    def title(self) -> str:
        return TITLES[self.role]

    @property
    def path(self) -> str:
        return self.model.path

    @property
    def name(self) -> str:
        """The path as visitors see it: of an absolute one the last three parts."""
        parts = Path(self.path).parts
        return "/".join(("…", *parts[-3:])) if Path(self.path).is_absolute() and len(parts) > 4 else self.path

    @property
    def parameters(self) -> int:
        return self.model.num_parameters

    @property
    def device(self) -> str:
        return str(self.model.policy.device)

    @property
    def embedded(self) -> bool:
        return self.path.startswith("zoo:")

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.model.eos_ids

    @property
    def teacher(self) -> Teacher:
        """The model as one that scores, in its own view of each sample."""
        from reopold_vl.teachers.local import LocalTeacher

        return LocalTeacher(self.model, rows_at_once=1)

    def warm_up(self) -> None:
        """A short answer, thrown away: a process's first call is slower than all others and would be on the clock."""
        engine = self.model.engine(rows_at_once=1)
        engine.generate([self.model.encoder(_blank())], n=1, max_new_tokens=4, seed=0, temperature=0.0)

    def stream(self, sample: VisualSample, **settings: Any) -> Generator[Rollout, None, None]:
        """The growing answer; encoding the picture is inside, because a user waits for that as well."""
        prompt = self.model.encoder(sample)
        yield from self.model.engine(rows_at_once=1).stream(prompt, **settings)

    def score(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Log-probs in nats of each rollout's tokens."""
        rows = self.teacher.score(rollouts).logprobs.tolist()
        return [row[: len(rollout.response_ids)] for row, rollout in zip(rows, rollouts, strict=True)]


@dataclass(frozen=True)
class Arena:
    """All models of the page, in the order of their columns; the teacher comes last.

    `mismatch` says why teacher and student cannot be compared token by token (None: they can).
    """

    contenders: tuple[Contender, ...]
    mismatch: str | None = None
    _locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._locks.update({contender.device: threading.Lock() for contender in self.contenders})

    def __getitem__(self, role: str) -> Contender:
        """The contender of that role; raises DemoError for a role that is not on the page."""
        for contender in self.contenders:
            if contender.role == role:
                return contender
        raise DemoError(f"model {role!r}: on this page are {', '.join(self.roles)}")

    @property
    def roles(self) -> list[Role]:
        return [contender.role for contender in self.contenders]

    @property
    def students(self) -> list[Role]:
        """All but the teacher: the roles whose tokens get credit."""
        return [role for role in self.roles if role != "teacher"]

    @property
    def embedded(self) -> bool:
        """Whether a model on the page knows the embedded benchmark alone."""
        return any(contender.embedded for contender in self.contenders)

    def alone(self, device: str) -> threading.Lock:
        """To be held while a model computes on that device."""
        return self._locks[device]


def refuse_addresses(paths: dict[Role, str]) -> None:
    """Raise DemoError for an address that cannot be a model's: a teacher server's may be the teacher's alone."""
    for role, path in paths.items():
        if "://" in path and not (role == "teacher" and path.startswith(("http://", "https://"))):
            server = " or a teacher server's address" if role == "teacher" else ""
            raise DemoError(f"--{role} is {path}: allowed is a directory, a Hub id, zoo:student, zoo:teacher{server}")


def load_arena(
    paths: dict[Role, str],
    *,
    device: str,
    dtype: str,
    min_pixels: int,
    max_pixels: int,
    max_prompt_tokens: int,
) -> Arena:
    """Load the models of all roles, warm them up and look whether student and teacher speak one vocabulary.

    Raises ModelError for a path that holds no usable model, TeacherError for an address without a teacher server.
    """
    from demo.remote import connected
    from reopold_vl.models import load_model

    contenders: list[Contender] = []
    for role, path in paths.items():
        if "://" in path:
            contenders.append(connected(path, contenders[-1].model))
            continue
        model = load_model(
            path,
            dtype=dtype,
            device=device,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            max_prompt_tokens=max_prompt_tokens,
        )
        model.policy.requires_grad_(False)
        contenders.append(Contender(role, model))
    for contender in contenders:
        contender.warm_up()
    return Arena(tuple(contenders), _mismatch(contenders))


def _blank() -> VisualSample:
    from PIL import Image

    from reopold_vl.types import VisualSample

    return VisualSample("warm-up", "What is this?", images=(Image.new("RGB", (84, 84), "gray"),))


def _mismatch(contenders: Sequence[Contender]) -> str | None:
    from reopold_vl.check import first_difference

    teacher = contenders[-1].teacher
    for contender in contenders[:-1]:
        different = first_difference(contender.model, teacher, _blank())
        if different is not None:
            return different.measured
    return None
