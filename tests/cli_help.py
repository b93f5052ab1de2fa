"""Runs the command in processes of its own: fresh interpreters, and forks of a warm one that has torch imported.

A fresh interpreter takes about five seconds to import torch and transformers; a fork of a process that has done so
is a process of its own all the same, with its own files, signals and exit status. `python -m` is played by runpy.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODULE = "reopold_vl.train"
SMALL = ("--prompts-per-step", "4", "--rollout.n", "2", "--rollout.max-new-tokens", "8", "--threads", "1")


@dataclass(frozen=True)
class Result:
    """What a finished command left; `code` is negative for a process that a signal ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The lines of stderr that say something."""
        return [line for line in self.stderr.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    """The tests' environment: this checkout first, one thread, no network, a terminal of fixed width."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    fixed = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    return {**os.environ, **fixed}


def start(*args: object, cwd: Path | None = None, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    """`python -m reopold_vl.train args` in a fresh interpreter, not waited for."""
    command = [sys.executable, "-m", MODULE, *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True)


def finish(process: subprocess.Popen[str], timeout: float = 180) -> Result:
    """Wait for a started command; one that takes longer is killed and fails the test."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"no end after {timeout} s; stderr ended with {stderr[-500:]}") from None
    return Result(process.returncode, stdout, stderr)


def run_fresh(*args: object, cwd: Path | None = None, timeout: float = 180) -> Result:
    return finish(start(*args, cwd=cwd), timeout)


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
    """Look twenty times a second until `condition` holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout} s for {what}"
        time.sleep(0.05)


class Warm:
    """A process with everything imported, of which each command is a fork. One command at a time."""

    def __init__(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="reopold-cli-"))
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, *args: object, cwd: Path | None = None, timeout: float = 120, file_limit: int | None = None
    ) -> Result:
        """Run the command; `file_limit` bytes are the most that it can write to one file."""
        with self.running(*args, cwd=cwd, timeout=timeout, file_limit=file_limit) as job:
            return job.result()

    @contextmanager
    def running(
        self,
        *args: object,
        cwd: Path | None = None,
        timeout: float = 120,
        file_limit: int | None = None,
        env: dict[str, str] | None = None,
    ) -> Iterator[Job]:
        """Start the command and leave it running, with `env` added to its environment; `Job.result` waits for it."""
        out, err = (Path(tempfile.mkstemp(dir=self._scratch)[1]) for _ in range(2))
        request = {
            "argv": list(map(str, args)),
            "cwd": str(cwd or self._scratch),
            "out": str(out),
            "err": str(err),
            "timeout": timeout,
            "file_limit": file_limit,
            "env": env,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        job = Job(int(self._process.stdout.readline()), out, err, self._process)
        try:
            yield job
        finally:
            job.result()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        shutil.rmtree(self._scratch, ignore_errors=True)


@lru_cache
def warm() -> Warm:
    """The one warm process of a test session."""
    process = Warm()
    atexit.register(process.close)
    return process


class Job:
    """One fork: its process id while it runs, its result in the end."""

    def __init__(self, pid: int, out: Path, err: Path, server: subprocess.Popen[str]) -> None:
        self.pid, self._out, self._err, self._server = pid, out, err, server
        self._code: int | None = None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def result(self) -> Result:
        if self._code is None:
            assert self._server.stdout is not None
            self._code = int(self._server.stdout.readline())
        return Result(self._code, self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8"))


def serve() -> None:
    """The warm process: a request a line; answers with the fork's process id, then with its exit status."""
    for module in ("reopold_vl.loop", "tensorboard", "torch.utils.tensorboard", "matplotlib.figure", "datasets"):
        __import__(module)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _play(**request)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _play(
    argv: Sequence[str],
    cwd: str,
    out: str,
    err: str,
    timeout: float,
    file_limit: int | None,
    env: dict[str, str] | None,
) -> None:  # never returns
    os.environ.update(env or {})
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    signal.alarm(int(timeout))  # SIGALRM ends a process that nobody else ends
    faulthandler.dump_traceback_later(timeout - 2)  # and this tells what it was at
    sys.argv = [MODULE, *argv]
    code: Any = 1
    try:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  (an interpreter prints it and exits with 1: so do we)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def small_pair(directory: Path) -> tuple[str, ...]:
    """A tiny random student and another one as its teacher; the flags that name them."""
    from tiny import save_tiny

    student = save_tiny(directory / "tiny_student", "qwen2_5_vl", seed=1)
    teacher = save_tiny(directory / "tiny_teacher", "qwen2_5_vl", seed=2, hidden=48)
    return ("--student.path", str(student), "--teacher.path", str(teacher))


def small_rows(directory: Path, num: int = 30) -> Path:
    """A jsonl of `num` questions about pictures of one to nine red squares, and the pictures."""
    from PIL import Image

    (directory / "images").mkdir(parents=True)
    lines = []
    for index in range(num):
        image = Image.new("RGB", (84, 84), (128, 128, 128))
        cells = [cell for cell in range(9) if (index * 7 + cell * cell) % 5 < 2]
        for cell in cells:
            left, top = 28 * (cell % 3) + 4, 28 * (cell // 3) + 4
            image.paste((200, 10 + index, 10), (left, top, left + 20, top + 20))
        image.save(directory / "images" / f"{index}.png")
        row = {"image": f"images/{index}.png", "question": "How many red squares?", "answer": len(cells)}
        lines.append(json.dumps(row) + "\n")
    (directory / "rows.jsonl").write_text("".join(lines))
    return directory / "rows.jsonl"


def refused(result: Result) -> str:
    """The one line of a refused command; asserts exit status 2, one line on stderr and no traceback."""
    assert result.code == 2, (result.code, result.stderr[-2000:])
    assert len(result.lines) == 1, result.stderr
    assert result.lines[0].startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    return result.lines[0]


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    serve()
