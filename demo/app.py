"""`python -m demo.app`: the command line of the demo."""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from demo.contenders import refuse_addresses
from demo.errors import DemoError
from reopold_vl import cli_errors
from reopold_vl.cli_errors import fail, parse_flags

if TYPE_CHECKING:
    from demo.contenders import Role
    from demo.service import Service

PROGRAM = "python -m demo.app"
USAGE = """Student against teacher on a page: both answers side by side, and the credit that each token got.

  python -m demo.app                                        the embedded pair, no download
  python -m demo.app --student runs/embedded/student --before zoo:student
  python -m demo.app --student DIR_OR_ID --teacher DIR_OR_ID --device cuda
  python -m demo.app --student DIR_OR_ID --teacher http://HOST:8765         see python -m reopold_vl.serve_teacher"""

EMBEDDED_TOKENS, USUAL_TOKENS = 56, 512
USUAL_PLACES = (Path("runs"), Path("evals"))  # read where they are; others must be there
require = partial(cli_errors.require, DemoError)


@dataclass(frozen=True)
class DemoConfig:
    """All settings of the demo; the fields are the flags."""

    student: str = "zoo:student"
    """The small model: a directory, a Hub id, or zoo:student."""

    teacher: str = "zoo:teacher"
    """The large model: a directory, a Hub id, zoo:teacher, or the address of a teacher server (its token is taken from
    $REOPOLD_VL_TEACHER_TOKEN)."""

    before: str | None = None
    """The student before training, as a third column."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in (then set --auth)."""

    port: int = 7860
    """Port of the page; 0 takes a free one."""

    share: bool = False
    """Open a public tunnel through Gradio's servers: the only thing here that uses the internet."""

    auth: str | None = None
    """user:password that visitors must give."""

    device: str = "auto"
    """Where the models run: auto, cpu, cuda, cuda:1."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights."""

    max_new_tokens: int | None = None
    """The longest answer that a visitor may ask for, in tokens; by default 2048, with the embedded pair 128."""

    max_prompt_tokens: int = 4096
    """The longest prompt, the picture's tokens included."""

    min_pixels: int = 4 * 28 * 28
    """Smaller pictures are enlarged to this area."""

    max_pixels: int = 1280 * 28 * 28
    """Larger pictures are shrunk to this area."""

    threads: int | None = None
    """CPU threads of torch; None leaves torch's choice, and takes one for the embedded pair."""

    read: tuple[Path, ...] = USUAL_PLACES
    """Directories whose training runs and evaluations the page shows; nothing else on this machine is readable."""

    votes: Path = Path("votes.jsonl")
    """Where blind votes are appended."""

    def __post_init__(self) -> None:
        refuse_addresses(self.paths)
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        require(self.auth is None or _pair(self.auth) is not None, "auth", "not shown here", "user:password")
        for name in ("max_new_tokens", "max_prompt_tokens", "threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(0 < self.min_pixels <= self.max_pixels, "min_pixels", self.min_pixels, "1 to max_pixels")
        for path in self.read:
            there = path in USUAL_PLACES or path.expanduser().is_dir()
            require(there, "read", path, "directories that are there")

    @property
    def paths(self) -> dict[Role, str]:
        """Each role's model, in the order of the columns."""
        before: dict[Role, str] = {"before": self.before} if self.before else {}
        return {**before, "student": self.student, "teacher": self.teacher}

    @property
    def embedded(self) -> bool:
        return all(path.startswith("zoo:") for path in self.paths.values())


def _pair(auth: str) -> tuple[str, str] | None:
    user, colon, password = auth.partition(":")
    return (user, password) if user and colon and password else None


def parse(argv: list[str]) -> DemoConfig:
    """The settings from the arguments; raises DemoError, or SystemExit for --help."""
    return parse_flags(DemoConfig(), argv, program=PROGRAM, usage=USAGE, error=DemoError)


def load_service(config: DemoConfig) -> Service:
    """Load the models; raises DemoError or ModelError with one line."""
    import torch

    from demo.contenders import load_arena
    from demo.places import Places
    from demo.service import Service

    threads = config.threads or (1 if config.embedded else None)
    if threads is not None:
        torch.set_num_threads(threads)
    arena = load_arena(
        config.paths,
        device=config.device,
        dtype=config.dtype,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        max_prompt_tokens=config.max_prompt_tokens,
    )
    limit = config.max_new_tokens or (128 if config.embedded else 2048)
    return Service(arena, Places.of(config.read), config.votes, limit)


def launch(config: DemoConfig) -> None:
    """Load and serve; returns when the server was interrupted. Raises DemoError where it cannot start."""
    if find_spec("gradio") is None:
        raise DemoError("the demo needs gradio, which is not installed: pip install -e '.[demo]'")
    service = load_service(config)
    from demo.page import build_page, launch_settings

    tokens = min(service.max_new_tokens, EMBEDDED_TOKENS if config.embedded else USUAL_TOKENS)
    page = build_page(service, default_tokens=tokens)
    try:
        _, address, public = page.launch(
            server_name=config.host,
            server_port=config.port or None,
            share=config.share,
            auth=_pair(config.auth) if config.auth else None,
            prevent_thread_lock=True,
            quiet=True,
            **launch_settings(),
        )
    except OSError as error:
        reason = f"it is in use or not allowed, or {config.host} is no address of this machine"
        raise DemoError(f"port is {config.port}: {reason}; take another --port or --host") from error
    if service.arena.mismatch is not None:
        print(f"note: no credit view for this pair: {service.arena.mismatch}")
    print(f"the page is at {address}" + (f" and at {public}" if public else "") + " (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:  # its own waiting would leave open pages hanging for seconds
        page.close(verbose=False)
        gc.freeze()  # else the interpreter looks through all of torch and gradio for seconds before it ends


def main() -> int:
    try:
        launch(parse(sys.argv[1:]))
    except ValueError as error:
        return fail(str(error))
    except KeyboardInterrupt:  # while the models are loaded
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
