"""Lists of numbers: "[1, 2]", "2014 and 2016", "(3, -1)"."""

from __future__ import annotations

import re

from eval.scoring.numbers import numbers_in, parse_number
from eval.scoring.wording import undressed

_BRACKETS = re.compile(r"\[([^\[\]]{1,300})\]")
_ROUND = re.compile(r"\(([^()]{1,200},[^()]{1,200})\)")
_AND = re.compile(r"(?<![\w.])(-?[\d.,/]{1,20})\s*(?:,|and|to|-|&)\s*(-?[\d.,/]{1,20})(?![\w])")


def find_list(text: str) -> str | None:
    """The last list of numbers in `text`, written "[1, 2]"; None where there is none."""
    for pattern in (_BRACKETS, _ROUND):
        for match in reversed(list(pattern.finditer(text))):
            items = [item.strip() for item in match[1].split(",")]
            if len(items) > 1 and all(parse_number(item) is not None for item in items):
                return written(items)
    pairs = list(_AND.finditer(undressed(text)))
    if pairs:
        found = numbers_in(f"{pairs[-1][1].strip('.,')} ; {pairs[-1][2].strip('.,')}")
        return written([number.text for number in found]) if len(found) == 2 else None
    return None


def written(items: list[str]) -> str:
    """Numbers as a Python list shows them."""
    return "[" + ", ".join(item.strip() for item in items) + "]"


def list_values(text: str) -> list[float] | None:
    """The numbers of a written list, or None."""
    inner = text.strip().strip("[](){}\\$ ")
    parts = [parse_number(item) for item in inner.split(",")]
    return [part for part in parts if part is not None] if parts and None not in parts else None
