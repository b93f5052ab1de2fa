"""`python -m reopold_vl.serve_teacher`: its settings, its errors, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from cli_help import environment

from reopold_vl.serve_teacher import main, parse


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "which model?"),
        (["--port", "1"], "which model?"),
        (["zoo:teacher", "--port", "99999"], "port is 99999: allowed is 0 to 65535"),
        (["zoo:teacher", "--max-batch", "0"], "max_batch is 0: allowed is 1 or more"),
        (["zoo:teacher", "--prot", "1"], "did you mean --port?"),
        (["zoo:teacher", "--token-env", "NO_SUCH_VARIABLE"], "token_env is NO_SUCH_VARIABLE: allowed is a variable"),
        (["zoo:teacher", "--host", "203.0.113.7", "--port", "0"], "203.0.113.7:0 cannot be listened on"),
        (["nothing/here/at/all", "--port", "0"], "nothing/here/at/all: no such directory"),
    ],
)
def test_a_wrong_command_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(["zoo:teacher"])[2] is None
    monkeypatch.setenv("REOPOLD_VL_TEACHER_TOKEN", "geheim")
    assert parse(["zoo:teacher"])[2] == "geheim"
    monkeypatch.setenv("REOPOLD_VL_TEACHER_TOKEN", " ")
    with pytest.raises(ValueError, match="without white space") as error:
        parse(["zoo:teacher"])
    monkeypatch.setenv("REOPOLD_VL_TEACHER_TOKEN", "ge heim\n")
    with pytest.raises(ValueError, match="without white space") as error:
        parse(["zoo:teacher"])
    assert "ge heim" not in str(error.value)


def test_the_command_serves_and_ends_on_a_signal(tiny_dirs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "reopold_vl.serve_teacher", str(tiny_dirs["qwen2_5_vl"]), "--host", "0.0.0.0"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--threads", "1"], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "no token is asked for: set $REOPOLD_VL_TEACHER_TOKEN" in process.stdout.readline()
        line = process.stdout.readline()
        assert line.startswith("qwen2_5_vl is at http://0.0.0.0:")  # of a directory only its own name
        url = line.split()[3].replace("0.0.0.0", "127.0.0.1")
        assert requests.get(f"{url}/v1/info", timeout=30).json()["model"] == "qwen2_5_vl"
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        process.wait(30)
        assert process.returncode in (0, -signal.SIGTERM) and time.monotonic() - began < 15
    finally:
        process.kill()
        process.wait()
