"""Runs of several processes, as torchrun would start them: forks of warm interpreters, one for each rank."""

from __future__ import annotations

import atexit
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

from cli_help import Job, Result, Warm

MOST = 3


@lru_cache
def _warm() -> list[Warm]:
    """One warm interpreter a rank: each runs one command at a time."""
    found = [Warm() for _ in range(MOST)]
    for process in found:
        atexit.register(process.close)
    return found


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells process `rank` of `size` on one machine."""
    return {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


@contextmanager
def running(
    args: Sequence[object],
    *,
    size: int,
    own: dict[int, Sequence[object]] | None = None,
    limits: dict[int, int] | None = None,
) -> Iterator[list[Job]]:
    """`python -m reopold_vl.train args` in `size` processes; `own` adds arguments for some ranks, `limits` holds the
    bytes that some can write to one file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                _warm()[rank].running(
                    *args,
                    *(own or {}).get(rank, ()),
                    env=environment(rank, size, port),
                    file_limit=(limits or {}).get(rank),
                    timeout=60,
                )
            )
            for rank in range(size)
        ]


def run(
    args: Sequence[object],
    *,
    size: int,
    own: dict[int, Sequence[object]] | None = None,
    limits: dict[int, int] | None = None,
) -> list[Result]:
    """The same, waited for."""
    with running(args, size=size, own=own, limits=limits) as jobs:
        return [job.result() for job in jobs]


def run_of(directory: Path, args: Sequence[object], *, name: str, size: int) -> Path:
    """The directory of a run that must succeed."""
    results = run([*args, "--output-dir", directory, "--name", name], size=size)
    codes = [result.code for result in results]
    assert codes == [0] * size, "\n".join([str(codes), *(result.stderr[-3000:] for result in results)])
    return directory / name
