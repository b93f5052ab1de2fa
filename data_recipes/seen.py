"""What has been kept so far, as far as duplicates go. Memory does not grow with pictures: thumbnails lie in a file."""

from __future__ import annotations

import errno
import os
import struct
from array import array
from pathlib import Path

from data_recipes.hashes import THUMBNAIL_BYTES, is_plain, key_number, thumbnail_gap
from data_recipes.near import HashIndex
from data_recipes.types import Checked

NEAR_BITS = 7
"""Perceptual hashes at most this far apart are candidates; a JPEG copy is within 4 bits in 99 of 100 cases."""

NEAR_GAP = 10.0
"""Thumbnails at most this far apart (grey levels, see `thumbnail_gap`) show the same picture."""

SAME_ANSWER_GAP = 20.0
"""The same where question and answer agree as well: small pictures suffer more from JPEG and resizing."""

_HEAD = struct.Struct("<7Q")  # number, images, images and question, question and answer, other images, hash, has image
RECORD_BYTES = _HEAD.size + THUMBNAIL_BYTES


class Seen:
    """Rows by their picture and question. Every row takes one record of a file, so a resumed build reads it back.

    Two rows have the same picture when all their images have equal pixels; nearly the same, when the first ones are
    alike (perceptual hash and thumbnail) and the others are equal.
    """

    def __init__(self, path: Path, committed: int = 0) -> None:
        """Open the record file and keep its first `committed` records; what lies behind them was never committed."""
        self._images: dict[int, int] = {}
        self._questions: dict[int, int] = {}
        self._index = HashIndex()
        self._details = [array("Q") for _ in range(4)]  # record, row number, question and answer, other images
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._count = 0
        for _ in range(committed):
            self._learn(self._file.read(RECORD_BYTES)[: _HEAD.size])
        self._file.truncate(committed * RECORD_BYTES)
        self._file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return self._count

    def same_question(self, row: Checked, *, near: bool) -> str:
        """Why the row repeats picture and question of an earlier one; "" if it does not."""
        head = _head(row)
        if (number := self._questions.get(head[2])) is not None:
            return f"same image and question as row {number}"
        if near and (number := self._near(row, head, same_answer=True)) is not None:
            return f"nearly the same image, same question and answer as row {number}"
        return ""

    def same_image(self, row: Checked, *, near: bool) -> str:
        """Why the row repeats the picture of an earlier one; "" if it does not, or has none."""
        if not row.image_sha256:
            return ""
        head = _head(row)
        if (number := self._images.get(head[1])) is not None:
            return f"same image as row {number}"
        if near and (number := self._near(row, head, same_answer=False)) is not None:
            return f"nearly the same image as row {number}"
        return ""

    def add(self, row: Checked) -> None:
        """Note a row that stays."""
        head = _HEAD.pack(*_head(row))
        thumbnail = row.extra["thumbnails"][0] if row.image_sha256 else bytes(THUMBNAIL_BYTES)
        if self._file.write(head + thumbnail) != RECORD_BYTES:  # unbuffered files may write a part, and say so only so
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._learn(head)

    def commit(self) -> int:
        """Make sure that all records are on the disk; how many there are."""
        os.fsync(self._file.fileno())
        return self._count

    def close(self) -> None:
        self._file.close()

    def _learn(self, packed: bytes) -> None:
        number, images, asked, answered, others, code, has_image = _HEAD.unpack(packed)
        self._questions.setdefault(asked, number)
        if has_image:
            self._images.setdefault(images, number)
            self._index.add(code)
            for column, value in zip(self._details, (self._count, number, answered, others), strict=True):
                column.append(value)
        self._count += 1

    def _near(self, row: Checked, head: tuple[int, ...], *, same_answer: bool) -> int | None:
        if not row.image_sha256 or is_plain(thumbnail := row.extra["thumbnails"][0]):
            return None
        records, numbers, answered, others = self._details
        for position in self._index.search(row.image_phash[0], NEAR_BITS):
            if others[position] != head[4] or (same_answer and answered[position] != head[3]):
                continue
            other = os.pread(self._file.fileno(), THUMBNAIL_BYTES, records[position] * RECORD_BYTES + _HEAD.size)
            if thumbnail_gap(thumbnail, other)[0] <= (SAME_ANSWER_GAP if same_answer else NEAR_GAP):
                return numbers[position]
        return None


def _head(row: Checked) -> tuple[int, ...]:
    images = row.image_sha256
    # An answer that cannot be normalised into anything still has to agree: verbatim then.
    answer = row.answer_normalised or row.sample.answer or ""
    # Several responses to one prompt are several rows.
    asked = f"{row.question_key}/{row.extra.get('response') or ''}"
    return (
        row.number,
        key_number(*images),
        key_number(*images, asked),
        key_number(asked, answer),
        key_number(*images[1:]),
        row.image_phash[0] if images else 0,
        int(bool(images)),
    )
