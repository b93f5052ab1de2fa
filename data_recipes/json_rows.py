"""Rows out of JSON lines, JSON lists and JSON objects of rows, one at a time: memory does not grow with the file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_recipes.types import RecipeError, RowError

CHUNK = 2**20
MAX_ROW = 64 * 2**20  # characters; a list whose brackets never close would otherwise be read whole

# Numbers stay as they are written (3.50), as in reopold_vl.rows.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


def read_rows(file: Path) -> Iterator[dict[str, Any] | RowError]:
    """Every row in its order; a line or item that is no object is a RowError and counts as a row.

    A file is one object a line, or a list of objects, or one object whose values are the rows (their keys become
    `pid` where a row has none). Raises RecipeError where a list or object is not valid JSON.
    """
    return map(_as_row, read_lines(file) if is_lines(file) else _read_document(file))


def is_lines(file: Path) -> bool:
    """Whether a file holds one JSON value a line (True for an empty one), not one list or object of rows."""
    with file.open("rb") as handle:
        start = handle.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start.startswith(b"{") or file.suffix.lower() in (".jsonl", ".ndjson"):
            return not start.startswith(b"[")
        handle.seek(0)
        first = b""
        while not first.strip():
            first = handle.readline(MAX_ROW).removeprefix(codecs.BOM_UTF8)
        alone = _parsed(first)
        if isinstance(alone, RowError):
            return False
        more = any(line.strip() for line in handle)
    return more or not all(isinstance(value, dict) for value in alone.values())


def read_lines(file: Path) -> Iterator[Any]:
    r"""Parsed lines; split at "\n" alone (U+2028 may stand inside a text), blank ones left out."""
    with file.open("rb") as handle:
        for line in _without_bom(handle):
            if line.strip():
                yield _parsed(line)


def count_lines(file: Path) -> int:
    """How many rows `read_lines` gives, without parsing them."""
    with file.open("rb") as handle:
        return sum(1 for line in _without_bom(handle) if line.strip())


def skip_lines(file: Path, skip: int) -> Iterator[dict[str, Any] | RowError]:
    """The rows of a file of lines from row `skip` on; the ones before are not parsed."""
    with file.open("rb") as handle:
        lines = (line for line in _without_bom(handle) if line.strip())
        for number, line in enumerate(lines):
            if number >= skip:
                yield _as_row(_parsed(line))


def _without_bom(handle: Any) -> Iterator[bytes]:
    first = next(iter(handle), b"")
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from handle


def _parsed(line: bytes) -> Any:
    try:
        return _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return RowError(f"not valid JSON, {error}")


def _as_row(value: Any) -> dict[str, Any] | RowError:
    if isinstance(value, dict | RowError):
        return value
    return RowError(f"a row must be an object, not {value!r:.60}")


def _read_document(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        text = _Text(handle, file)
        closing = "]" if text.take("[{") == "[" else "}"
        while (mark := text.peek()) != closing:
            if mark == ",":
                text.take(",")
            key = None
            if closing == "}":
                key = text.value()
                text.take(":")
            value = text.value()
            yield {"pid": key, **value} if isinstance(value, dict) and key is not None else value


class _Text:
    """A window that moves over a file: what is before `place` is done with."""

    def __init__(self, handle: Any, file: Path) -> None:
        self._handle, self._file = handle, file
        self._window, self._place, self._ended = "", 0, False

    def _fill(self) -> None:
        self._window, self._place = self._window[self._place :], 0
        try:
            read = self._handle.read(max(CHUNK, len(self._window)))  # doubling: long rows are not parsed over and over
        except UnicodeDecodeError as error:
            raise RecipeError(f"{self._file}: not UTF-8, {error}") from error
        self._window += read
        self._ended = not read

    def peek(self) -> str:
        """The next character that is no blank."""
        while True:
            while self._place < len(self._window) and self._window[self._place] in " \t\r\n":
                self._place += 1
            if self._place < len(self._window):
                return self._window[self._place]
            if self._ended:
                raise RecipeError(f"{self._file}: not valid JSON, it ends in the middle")
            self._fill()

    def take(self, allowed: str) -> str:
        """The next character, which must be one of `allowed`."""
        if (found := self.peek()) not in allowed:
            raise RecipeError(f"{self._file}: not valid JSON, {found!r} where one of {' '.join(allowed)} is expected")
        self._place += 1
        return found

    def value(self) -> Any:
        """The next JSON value, whole."""
        self.peek()
        while True:
            problem = "it ends in the middle"
            try:
                value, end = _DECODER.raw_decode(self._window, self._place)
                if end < len(self._window) or self._ended:  # a number at the edge may go on
                    self._place = end
                    return value
            except ValueError as error:
                problem = str(error)
            except RecursionError:
                raise RecipeError(f"{self._file}: not valid JSON, too deeply nested") from None
            if self._ended or len(self._window) - self._place > MAX_ROW:
                raise RecipeError(f"{self._file}: not valid JSON, {problem}")
            self._fill()
