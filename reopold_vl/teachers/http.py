"""JSON over HTTP to a teacher server: time-outs, retries with doubling pauses, errors of one line."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reopold_vl.teachers import TeacherError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds


@dataclass(frozen=True)
class Connection:
    """A server's address and how patiently it is asked.

    Connection errors, time-outs, 429 and 5xx are tried again up to `retries` times; any other 4xx never, because the
    same request would be refused again. Proxies of the environment are heeded, a .netrc is not: it would replace the
    token. Redirects are refused, so that the token goes nowhere else.
    """

    url: str
    token: str | None
    timeout_seconds: float
    retries: int
    sleep: Callable[[float], None] = time.sleep
    _session: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        import requests

        object.__setattr__(self, "_session", requests.Session())

    def get(self, path: str) -> Any:
        """The JSON that lies there; raises TeacherError."""
        return self._asked("GET", path, None)

    def post(self, path: str, value: Mapping[str, Any]) -> Any:
        """The JSON answer to `value`; raises TeacherError."""
        return self._asked("POST", path, value)

    def events(self, path: str, value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Server-sent events of one answer; raises TeacherError. Never tried again: part of it has been seen."""
        import requests

        try:
            with self._request("POST", path, value, stream=True) as response:
                self._refuse(path, response)
                for line in response.iter_lines():
                    text = line.decode("utf-8", "replace")
                    if text == "data: [DONE]":
                        return
                    if text.startswith("data: "):
                        yield self._parsed(path, text.removeprefix("data: "))
        except requests.RequestException as error:
            raise TeacherError(f"{self.url}{path}: {_reason(error)}") from None
        raise TeacherError(f"{self.url}{path}: the answer ends in the middle")

    def _asked(self, method: str, path: str, value: Mapping[str, Any] | None) -> Any:
        import requests

        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.75, 1.25)
            try:
                response = self._request(method, path, value, stream=False)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                if last:
                    raise TeacherError(f"{self.url}{path}: {_reason(error)}{self._patience(attempt)}") from None
            except requests.RequestException as error:
                raise TeacherError(f"{self.url}{path}: {_reason(error)}") from None
            else:
                if last or not (response.status_code == 429 or response.status_code >= 500):
                    self._refuse(path, response, self._patience(attempt))
                    return self._parsed(path, response.text)
                wanted = response.headers.get("retry-after", "")
                pause = min(LONGEST_PAUSE, max(pause, float(wanted))) if wanted.isdigit() else pause
            self.sleep(pause)
        raise AssertionError("unreachable")

    def _request(self, method: str, path: str, value: Mapping[str, Any] | None, *, stream: bool) -> Any:
        return self._session.request(
            method,
            self.url + path,
            data=None if value is None else json.dumps(value).encode(),
            headers={"content-type": "application/json"},
            auth=self._authorise,
            timeout=(min(10.0, self.timeout_seconds), self.timeout_seconds),
            allow_redirects=False,
            stream=stream,
        )

    def _authorise(self, request: Any) -> Any:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def _refuse(self, path: str, response: Any, patience: str = "") -> None:
        """Raise TeacherError for any status but 200."""
        status = response.status_code
        if status == 200:
            return
        if status == 401:
            sent = "refuses the token" if self.token else "wants a token"
            raise TeacherError(f"{self.url} {sent} (401): see teacher.token_env")
        if 300 <= status < 400:
            raise TeacherError(f"{self.url}{path}: {status}, a redirect, which is not followed")
        try:
            reason = str(json.loads(response.text)["error"])
        except (ValueError, KeyError, TypeError):
            reason = response.reason or "no reason given"
        raise TeacherError(f"{self.url}{path}: {status}, {' '.join(reason.split())[:400]}{patience}")

    def _parsed(self, path: str, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise TeacherError(f"{self.url}{path}: the answer is not JSON ({' '.join(text.split())[:60]!r})") from None

    def _patience(self, attempt: int) -> str:
        return f" (tried {attempt + 1} times)" if attempt else ""


def _reason(error: Exception) -> str:
    """requests' errors carry their causes and memory addresses in their text: the last words say most."""
    name = type(error).__name__
    if "Timeout" in name:
        return "no answer in time"
    words = " ".join(str(error).split())
    if "refused" in words:
        return "nobody answers there (connection refused)"
    if "resolve" in words or "Name or service" in words:
        return "no such host"
    return f"the connection failed ({words.rpartition(': ')[2].strip(chr(39) + ')(')[:120] or name})"
