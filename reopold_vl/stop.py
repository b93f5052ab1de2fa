"""Stop where it is safe: Ctrl-C and SIGTERM end a run after the step in hand, with a checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """The run was asked to stop; `code` is the exit status that the signal calls for.

    No Exception, as with KeyboardInterrupt: a library's broad `except` must not swallow the request.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.code = 128 + signum


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stopped`: at once outside `deferred()`, at its end inside.

    A second signal inside `deferred()` does not wait. `share` gives the largest of the numbers that several processes
    of a run give it: a signal to one of them then stops all, after the same step.
    """

    def __init__(self, share: Callable[[float], float] = lambda number: number) -> None:
        self._share = share
        self._deferred = False
        self._received: int | None = None

    def requested(self) -> bool:
        """Whether a signal has come, here or to another process; all processes ask at the same places."""
        agreed = int(self._share(self._received or 0))
        if agreed:  # else one that has come in the meantime is kept for the next time
            self._received = agreed
        return bool(agreed)

    @contextmanager
    def installed(self) -> Iterator[StopSignals]:
        old = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A section that a first signal does not interrupt."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.requested():
            assert self._received is not None
            raise Stopped(self._received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self._received is not None
        self._received = signum
        if again or not self._deferred:
            raise Stopped(signum)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after this step; once more stops at once\n")
