"""Stored responses: one JSON object a line, keyed by what was asked of whom, recovered after any kind of death."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from eval.types import Problem, Response


class ResponseError(ValueError):
    """A file of responses that cannot be used; one line saying why."""


@dataclass(frozen=True)
class GenerationSettings:
    """All that an answer depends on besides problem, model and sample number.

    Image areas are in pixels; `dtype` is the precision of weights and products.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    min_pixels: int
    max_pixels: int
    max_prompt_tokens: int
    dtype: str

    def key_values(self) -> dict[str, Any]:
        """The settings as they enter keys: greedy answers know neither seed nor top_p."""
        values = asdict(self)
        return {**values, "seed": None, "top_p": None} if self.temperature == 0 else values


def response_key(
    *, bench: str, problem_id: str, prompt: str, images: str, settings: GenerationSettings, model: str, sample: int
) -> str:
    """sha256, in hexadecimal, over what was asked of whom; `images` and `model` are hashes of their own."""
    parts = [bench, problem_id, prompt, images, settings.key_values(), model, sample]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def images_hash(images: Sequence[Any]) -> str:
    """sha256 over the images' bytes, or over the pixels of those that are decoded already.

    A file that cannot be read is hashed by its name; encoding the prompt will fail on it and say so.
    """
    digest = hashlib.sha256()
    for image in images:
        content = _image_bytes(image)
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def _image_bytes(image: Any) -> bytes:
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if hasattr(image, "tobytes") and hasattr(image, "mode"):
        palette = image.getpalette() if image.mode == "P" else None
        try:
            return f"{image.mode}{image.size}{palette}".encode() + image.tobytes()
        except OSError as error:
            return f"unreadable: {error}".encode()
    try:
        return Path(image).read_bytes() if Path(str(image)).is_file() else str(image).encode()
    except (OSError, ValueError):  # such as a data URI, which is too long for a file name
        return str(image).encode()


def to_line(response: Response) -> bytes:
    """One line of JSON with its newline; the images stay behind."""
    record = {item.name: getattr(response, item.name) for item in fields(Response)}
    problem = response.problem
    record["problem"] = {item.name: getattr(problem, item.name) for item in fields(Problem) if item.name != "images"}
    text = json.dumps(record, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 lacks and JSON can spell
        return json.dumps(record).encode() + b"\n"


def from_line(line: bytes) -> Response:
    """What `to_line` wrote; raises ResponseError for anything else."""
    try:
        record = json.loads(line)
        problem = record["problem"]
        tags = {name: tuple(values) for name, values in problem.get("tags", {}).items()}
        choices = tuple(problem.get("choices", ()))
        restored = Problem(**{**problem, "tags": tags, "choices": choices, "images": ()})
        response = Response(**{**record, "problem": restored})
    except KeyError as error:
        raise ResponseError(f"no response: {error} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ResponseError(f"no response: {error}") from None
    plain = {"bench": str, "model": str, "sample": int, "key": str, "prompt": str, "text": str, "finish_reason": str}
    for name, kind in plain.items():
        if type(getattr(response, name)) is not kind:
            raise ResponseError(f"no response: {name} is {getattr(response, name)!r:.40}, not a {kind.__name__}")
    if response.finish_reason not in ("stop", "length", "failed"):
        raise ResponseError(f"no response: finish_reason is {response.finish_reason!r:.40}")
    return response


@dataclass(frozen=True)
class Stored:
    """The whole lines of a file: responses in file order (of two with one key the first), and what was left out.

    `torn` is the unfinished last line's length in bytes (0: none); `broken` are the numbers of other lines that hold
    no response; `repeated` counts lines whose key came before.
    """

    responses: tuple[Response, ...] = ()
    torn: int = 0
    broken: tuple[int, ...] = ()
    repeated: int = 0
    reasons: tuple[str, ...] = field(default=(), repr=False)

    @property
    def damaged(self) -> bool:
        return bool(self.torn or self.broken or self.repeated)

    def notes(self, path: Path) -> list[str]:
        """What the user should know, one line each."""
        notes = []
        if self.torn:
            notes.append(f"{path}: an unfinished last line ({self.torn} bytes) is dropped")
        if self.broken:
            where = ", ".join(map(str, self.broken[:5])) + (", ..." if len(self.broken) > 5 else "")
            notes.append(f"{path}: {len(self.broken)} broken lines are left out (line {where}: {self.reasons[0]})")
        if self.repeated:
            notes.append(f"{path}: {self.repeated} responses are there twice and count once")
        return notes


def read_responses(path: Path) -> Stored:
    """The responses in `path`; nothing without such a file. Raises OSError where it cannot be read."""
    if not path.exists():
        return Stored()
    # Split at newline bytes alone: answers may hold U+2028, where str.splitlines() would cut.
    lines = path.read_bytes().split(b"\n")
    tail = lines.pop()
    found: dict[str, Response] = {}
    broken: list[int] = []
    reasons: list[str] = []
    repeated = 0
    last = [tail] if tail else []
    for number, line in enumerate(lines + last, start=1):
        if not line.strip():
            continue
        try:
            response = from_line(line)
        except ResponseError as error:
            if number <= len(lines):
                broken.append(number)
                reasons.append(str(error))
            continue
        # A last line that lacks nothing but its newline is whole.
        tail = b"" if number > len(lines) else tail
        repeated += response.key in found
        found.setdefault(response.key, response)
    return Stored(tuple(found.values()), len(tail), tuple(broken), repeated, tuple(reasons))


def replace_responses(path: Path, responses: Iterable[Response]) -> None:
    """Write the file anew: a reader, or a next start, finds the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.writelines(map(to_line, responses))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def append_responses(path: Path, responses: Iterable[Response]) -> None:
    """Append a batch in one write and wait until it is on the disk."""
    with path.open("ab") as file:
        file.write(b"".join(map(to_line, responses)))
        file.flush()
        os.fsync(file.fileno())


def reclaim(path: Path, wanted: Sequence[str]) -> tuple[dict[str, Response], list[str]]:
    """The stored responses whose key is wanted, by key, with notes; afterwards `path` holds these alone.

    Responses to other problems or of other settings or models are set aside in `unused_*.jsonl` beside the file, and
    taken back from there when a run asks for them again.
    """
    aside = path.with_name("unused_" + path.name.removeprefix("responses_"))
    stored, unused = read_responses(path), read_responses(aside)
    keys = set(wanted)
    found = {response.key: response for response in (*unused.responses, *stored.responses) if response.key in keys}
    stale = [response for response in stored.responses if response.key not in keys]
    again = [response for response in unused.responses if response.key in keys]
    notes = [*stored.notes(path), *unused.notes(aside)]
    if stale:
        notes.append(
            f"{path.name}: {len(stale)} stored responses are to other problems or of other settings or another model; "
            f"not used, kept in {aside.name}"
        )
    if stale or again or unused.damaged:
        # First written there, then removed here: killed in between, a response is in both files and counts once.
        kept = {response.key: response for response in (*unused.responses, *stale)}
        replace_responses(aside, kept.values())
    if stale or again or stored.damaged or _last_byte(path) != b"\n":
        replace_responses(path, found.values())
    if again:
        replace_responses(aside, (response for response in kept.values() if response.key not in keys))
    return found, notes


def _last_byte(path: Path) -> bytes:
    if not path.exists() or path.stat().st_size == 0:
        return b"\n"
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
