"""What all commands share: a dataclass as flags, and errors of one line that name the nearest thing that exists."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Collection
from typing import TypeVar

Config = TypeVar("Config")


def parse_flags(
    default: Config, argv: list[str], *, program: str, usage: str, flags: Collection[str], error: type[ValueError]
) -> Config:
    """`default` with what `argv` changes; its dataclass's fields are the flags, its docstrings the help.

    `flags` are all names that a misspelt one is compared with. Raises `error` with one line for bad arguments, and
    SystemExit for --help.
    """
    import tyro

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            parsed, unknown = tyro.cli(
                type(default),
                default=default,
                args=argv,
                prog=program,
                description=usage,
                config=(tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
        raise error(_one_line(captured.getvalue())) from None
    if unknown:
        raise error(f"unknown argument {unknown[0]}{nearest(unknown[0], flags)}")
    return parsed


def _one_line(box: str) -> str:
    """The message of tyro's framed error: what stands between its title and its first rule."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    rule = next((index for index, line in enumerate(lines) if set(line) <= set("─╰╯")), len(lines))
    return re.sub(r"^Error parsing [A-Za-z]+: ", "", " ".join(lines[:rule]))  # our own messages name the field


def nearest(name: str, known: Collection[str]) -> str:
    """`(did you mean X?)` where something like `name` is known, and the whole list where it is short."""
    if name.startswith("--"):  # --lr may mean --optim.lr
        same = [flag for flag in known if flag.rpartition(".")[2] == name.lstrip("-")]
        if same:
            return f" (did you mean {same[0]}?)"
    near = difflib.get_close_matches(name.replace("_", "-") if name.startswith("--") else name, list(known), n=1)
    listed = f": allowed are {', '.join(known)}" if len(known) < 12 else ""
    return f" (did you mean {near[0]}?){listed}" if near else listed


def fail(message: str) -> int:
    """Print one line to stderr; the exit status of a user's error."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
