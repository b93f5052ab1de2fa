"""Where the teacher is: in this process, on another device, or behind a URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from reopold_vl.config.base import require
from reopold_vl.config.models import ModelConfig

TOKEN_ENV = "REOPOLD_VL_TEACHER_TOKEN"


@dataclass(frozen=True)
class TeacherConfig(ModelConfig):
    """The model that says how likely each of the student's tokens is; --teacher.path takes the URL of a teacher
    server as well."""

    routes: tuple[str, ...] = ()
    """SOURCE=PATH_OR_URL, one for each kind of sample with a teacher of its own; the rest goes to teacher.path."""

    align: Literal["tokens", "text"] = "tokens"
    """text takes a teacher with another tokenizer: rewards are those of the smallest spans of text that both share. It
    must be in this process."""

    token_env: str = TOKEN_ENV
    """Environment variable that holds the teacher server's bearer token, if it wants one."""

    timeout_seconds: float = 300.0
    """Longest wait for an answer of the teacher server."""

    retries: int = 8
    """Further attempts, with doubling pauses, when the teacher server is busy or cannot be reached."""

    requests_in_flight: int = 4
    """Requests that the teacher server works on at once."""

    served_model: str = ""
    """Name of the model on a vLLM server that serves several; without it the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.timeout_seconds > 0, "teacher.timeout_seconds", self.timeout_seconds, "above 0")
        require(0 <= self.retries <= 20, "teacher.retries", self.retries, "0 to 20")
        require(self.requests_in_flight >= 1, "teacher.requests_in_flight", self.requests_in_flight, "1 or more")
        for route in self.routes:
            source, _, path = route.partition("=")
            require(bool(source and path), "teacher.routes", repr(route), "SOURCE=PATH_OR_URL")
            _require_plain_url(path, "teacher.routes")
        sources = [source for source, _ in self.routes_by_source]
        twice = next((source for source in sources if sources.count(source) > 1), None)
        require(twice is None, "teacher.routes", f"two for {twice!r}", "one for each source")
        _require_plain_url(self.path, "teacher.path")
        paths = [self.path, *(path for _, path in self.routes_by_source)]
        served = next((path for path in paths if is_url(path)), None)
        fits = self.align == "tokens" or served is None
        require(fits, "teacher.align", f"text for the teacher server {served}", "tokens, or a teacher in this process")

    @property
    def routes_by_source(self) -> list[tuple[str, str]]:
        """(source, path or URL), in the order given."""
        return [(route.partition("=")[0], route.partition("=")[2]) for route in self.routes]


def is_url(path: str) -> bool:
    """Whether a teacher is named by the address of a server: ours, or with vllm+ in front vLLM's."""
    return path.lower().removeprefix("vllm+").startswith(("http://", "https://"))


def _require_plain_url(path: str, name: str) -> None:
    """A password in a URL would end up in config.yaml."""
    if "://" not in path:
        return
    require(is_url(path), name, path, "a directory, a Hub id, zoo:teacher or an http(s) URL")
    parts = urlsplit(path)
    secret = parts.username is not None or parts.password is not None or bool(parts.query or parts.fragment)
    shown = f"{parts.scheme}://{parts.hostname or ''}"
    require(bool(parts.hostname) and not secret, name, shown, f"an address alone (a token goes into ${TOKEN_ENV})")
