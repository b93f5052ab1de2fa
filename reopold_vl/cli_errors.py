"""What all commands share: a dataclass as flags, and errors of one line that name the nearest thing that exists."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")

# What tyro says of a number that is none, as Python words it or, where None is allowed too, in its own words.
_NO_NUMBER = re.compile(
    r"Error parsing (?P<flag>--\S+): (?P<kind>invalid literal for int|could not convert string to float"
    r"|no type matching \{None\}\|(?:INT|FLOAT))[^']*'(?P<value>.*)'"
)


def parse_flags(
    default: Config, argv: list[str], *, program: str, usage: str, error: type[ValueError], extras: Collection[str] = ()
) -> Config:
    """`default` with what `argv` changes; its dataclass's fields are the flags, its docstrings the help.

    `extras` are flags that the caller reads itself: a misspelt one is compared with them too. Raises `error` with one
    line for bad arguments, and SystemExit for --help.
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
        raise error(f"unknown argument {unknown[0]}{nearest(unknown[0], [*flag_names(default), *extras])}")
    return parsed


def parse_directory(
    default: Config, argv: Sequence[str], *, program: str, place: str, what: str, usage: str, error: type[ValueError]
) -> tuple[Path, Config]:
    """The directory that comes first and what the flags behind it change, of `program PLACE --flag ...`.

    Raises `error` asking for `what` where there is none, and what `parse_flags` raises.
    """
    named = bool(argv) and not argv[0].startswith("-")
    if not named and not {"-h", "--help"} & set(argv):
        raise error(f"{what}: {program} {place}")
    options = parse_flags(default, list(argv[named:]), program=f"{program} {place}", usage=usage, error=error)
    return Path(argv[0] if named else "."), options


def flag_names(config: Any, prefix: str = "") -> list[str]:
    """The flags of a dataclass and of those in it, as they are typed: --steps, --optim.lr, --data.no-require-image."""
    names = []
    for field in fields(config):
        value, name = getattr(config, field.name), field.name.replace("_", "-")
        if is_dataclass(value):
            names += flag_names(value, f"{prefix}{name}.")
        else:
            names += [f"--{prefix}{name}"] + ([f"--{prefix}no-{name}"] if isinstance(value, bool) else [])
    return names


def require(error: type[ValueError], condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises `error` in the toolkit's one form unless `condition` holds; each package binds its own kind of error."""
    if not condition:
        raise error(f"{name} is {value}: allowed is {allowed}")


def _one_line(box: str) -> str:
    """The message of tyro's framed error: what stands between its title and its first rule."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    rule = next((index for index, line in enumerate(lines) if set(line) <= set("─╰╯")), len(lines))
    message = re.sub(r"^Error parsing [A-Za-z]+: ", "", " ".join(lines[:rule]))  # our own messages name the field
    wrong = _NO_NUMBER.match(message)
    if wrong is None:
        return message
    name = wrong["flag"].lstrip("-").replace("-", "_")
    whole = "int" in wrong["kind"].lower()
    allowed = ("a whole number" if whole else "a number") + (" or None" if "None" in wrong["kind"] else "")
    return f"{name} is {wrong['value']}: allowed is {allowed}"


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
