"""A tokenizer seen as bytes: which bytes a token writes, and which tokens write given bytes, whatever they are."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

ANCHOR = "\n"  # written before a text where the tokenizer would otherwise put a space of its own in front
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """The tokens of `tokenizer` (a fast one of transformers) as bytes, and bytes as its tokens.

    Two kinds are told apart by the tokenizer's own decoder: byte-level BPE (GPT-2, Qwen, Llama 3), whose token strings
    are bytes in a printable alphabet, and all others (sentencepiece and its like), whose tokens are what they decode to
    behind another token, or one byte where they are named <0xHH>. `banned` ids are never written: image placeholders.

    Raises ValueError for a tokenizer without the `tokenizers` backend.
    """

    def __init__(self, tokenizer: Any, *, banned: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.banned = frozenset(banned)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(f"{type(tokenizer).__name__} has no fast backend: the bytes of its tokens are not known")
        self._backend = backend
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._strings = {index: token for token, index in self._vocabulary.items()}
        self.added: dict[int, str] = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
        decoder = "{}" if backend.decoder is None else backend.decoder.__getstate__().decode()
        self.byte_level = "ByteLevel" in _types(json.loads(decoder))
        self._pieces: dict[int, bytes] = {}
        self._behind = self._first_plain_token()
        self._lead: list[int] = []
        if self._spelled(self._call("a")) != b"a":
            self._lead = self._call(ANCHOR)

    @property
    def ordinary(self) -> dict[str, int]:
        """Token -> id without added tokens (special ones and others such as <think>)."""
        return {token: index for token, index in self._vocabulary.items() if index not in self.added}

    def piece(self, index: int) -> bytes:
        """The bytes that a token writes; empty for an id without a token."""
        if index not in self._pieces:
            self._pieces[index] = self._piece(index)
        return self._pieces[index]

    def write(self, data: bytes) -> list[int]:
        """Tokens that write exactly `data`, or its beginning up to the first byte that has no token.

        Text is spelled as the tokenizer does it; what it would change (Unicode normalisation), read as a special token
        or cannot be text at all (halves of characters) is written character by character and byte by byte.
        """
        ids: list[int] = []
        while data:
            found = self._agreeing(data) or self._first_character(data)
            if not found:
                break
            ids += found
            data = data[len(self._spelled(found)) :]
        return ids

    def _agreeing(self, data: bytes) -> list[int]:
        """The tokenizer's own spelling of the text that `data` begins with, as far as it says the same bytes."""
        ids, used = [], 0
        for index in self._tokenize(_text(data)):
            piece = self.piece(index)
            if index in self.banned or not data.startswith(piece, used):
                break
            ids.append(index)
            used += len(piece)
        return ids if used else []

    def _first_character(self, data: bytes) -> list[int]:
        character = _text(data)[:1].encode() or data[:1]
        alone = self._agreeing(character)
        if self._spelled(alone) == character:
            return alone
        ids = [self._byte_token(byte) for byte in character]
        return [index for index in ids if index is not None] if None not in ids else []

    def _byte_token(self, byte: int) -> int | None:
        name = _characters()[byte] if self.byte_level else f"<0x{byte:02X}>"
        return self._vocabulary.get(name)

    def _piece(self, index: int) -> bytes:
        token = self._strings.get(index)
        if token is None:
            return b""
        if index in self.added:
            return self.added[index].encode()
        if self.byte_level:
            return bytes(_alphabet()[character] for character in token if character in _alphabet())
        byte = BYTE_TOKEN.fullmatch(token)
        if byte is not None:
            return bytes([int(byte.group(1), 16)])
        if self._behind is None:
            return self._backend.decode([index], skip_special_tokens=False).encode()
        before, behind = self._behind
        return self._backend.decode([before, index], skip_special_tokens=False).removeprefix(behind).encode()

    def _first_plain_token(self) -> tuple[int, str] | None:
        """A token and its text, behind which decoders that treat a text's beginning apart treat no token so."""
        found = (index for token, index in self._vocabulary.items() if token.isalnum() and index not in self.added)
        index = next(found, None)
        return None if index is None else (index, self._backend.decode([index], skip_special_tokens=False))

    def _spelled(self, ids: list[int]) -> bytes:
        return b"".join(self.piece(index) for index in ids)

    def _tokenize(self, text: str) -> list[int]:
        if not text:
            return []
        anchored = self._call(ANCHOR + text) if self._lead else []
        if anchored and anchored[: len(self._lead)] == self._lead:
            return anchored[len(self._lead) :]
        return self._call(text)

    def _call(self, text: str) -> list[int]:
        """Special tokens written out in the text are text: an answer must not forge the end of a turn, or an image."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def whole_characters(data: bytes) -> bytes:
    """`data` without the character that its end has cut in two, if there is one."""
    for missing in (1, 2, 3):
        start = len(data) - missing
        if start >= 0 and data[start] >= 0xC0:  # the first byte of a character of several
            length = 2 if data[start] < 0xE0 else 3 if data[start] < 0xF0 else 4
            return data[:start] if length > missing else data
        if start < 0 or data[start] < 0x80:
            break
    return data


def _text(data: bytes) -> str:
    """The text that `data` begins with, up to the first byte that belongs to no character."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode()


@lru_cache
def _alphabet() -> dict[str, int]:
    """GPT-2's alphabet of bytes: printable ones stand for themselves, the others for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(others)}


@lru_cache
def _characters() -> dict[int, str]:
    return {byte: character for character, byte in _alphabet().items()}


def _types(part: Any) -> set[str]:
    """The types of a tokenizer's part (its serialised decoder) and of the parts within it."""
    if isinstance(part, dict):
        inner = set().union(*(_types(value) for value in part.values()))
        return inner | ({part["type"]} if isinstance(part.get("type"), str) else set())
    return set().union(*(_types(value) for value in part)) if isinstance(part, list) else set()
