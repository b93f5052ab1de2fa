"""Numbers in prose: "1,234", "-7", "2/3", "1.2e-3", "four", "\\frac{3}{4}", and which of them is the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.scoring.formula import value
from eval.scoring.units import split_unit

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_WORDS = {word: number for number, word in enumerate(_SMALL)} | _TENS
_WORD = rf"(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_SMALL[1:10])}))?|{'|'.join(sorted(_SMALL, key=len, reverse=True))}"

_DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d|,\d)|\d+\.\d+|\d+|\.\d+"
NUMBER = re.compile(
    r"(?P<latex>(?<![\w}])-?\s?(?:\d+\s?)?\\[dt]?frac\s*(?:\{[^{}]{1,30}\}\s*\{[^{}]{1,30}\}|\d\s*\d)"
    r"|(?<![\w.}])(?:\d+(?:\.\d+)?\s?[-+]\s?)?(?:\d+(?:\.\d+)?\s?)?(?:\\sqrt|\u221a)\s?(?:\{[^{}]{1,30}\}|\(?\d+(?:\.\d+)?\)?)"
    r"|(?<![\w.}])-?\d+(?:\.\d+)?\s?(?:\u03c0|\\pi)(?![a-zA-Z]))"
    rf"|(?P<fraction>(?<![\w./\d])-?(?:\d+ )?\d+\s?/\s?\d+(?![\d/]|\.\d))"
    rf"|(?P<digits>(?:(?<![\w)\]}}.%-])|(?<=[\s(=~])|^)-\s?\$?(?:{_DIGITS})|(?:{_DIGITS}))(?P<power>\s?(?:\\times|\u00d7|x|\*)\s?10\s?\^\s?\{{?-?\d{{1,3}}\}}?|[eE][+-]?\d{{1,3}}(?!\w))?"
    rf"|\b(?P<word>{_WORD})\b",
    re.IGNORECASE,
)
_LABEL_BEFORE = re.compile(
    r"(?:[A-Za-z_][-\u2019']?|[A-Za-z)}]\s?\^\s?\{?|\b(?:step|figure|fig\.|question|q|table|no\.|equation)\s?#?)$", re.I
)
_NO_AMOUNT_AFTER = re.compile(r"(?:st|nd|rd|th)\b|[a-zA-Z]{1,2}\d|\s?(?:decimal|significant|d\.p\.)", re.IGNORECASE)
_NO_AMOUNT_BEFORE = re.compile(
    r"\b(?:out of (?:the |a total of |all )?|(?:the )?(?:first|last|next|top|bottom) )$", re.IGNORECASE
)
_ENUMERATOR = re.compile(r"(?:^|\n)\s*(?:step )?\d{1,2}[.):] ", re.IGNORECASE)
_PRONOUN_AFTER = re.compile(
    r"\s+(?:of (?:the|these|those|them|its|my)\b|thing\b|another\b|can\b|might\b|may\b|-)", re.I
)


@dataclass(frozen=True)
class Number:
    """A number as written, its value, where it stands, whether it was spelled out."""

    text: str
    value: float
    start: int
    end: int
    spelled: bool = False


def numbers_in(text: str) -> list[Number]:
    """The numbers of `text` in order. Digits inside names ("A-847", "R2D2", "2nd") are no numbers."""
    found = []
    skip = match.end() if (match := _ENUMERATOR.match(text)) else 0
    for match in NUMBER.finditer(text, skip):
        before, after = text[max(0, match.start() - 20) : match.start()], text[match.end() : match.end() + 24]
        if match["word"]:
            if (
                (match["word"].lower() == "one" and _PRONOUN_AFTER.match(after))
                or _NO_AMOUNT_AFTER.match(after)
                or before.endswith('"')
            ):
                continue
            found.append(Number(match[0], _spelled(match["word"]), match.start(), match.end(), True))
            continue
        if _LABEL_BEFORE.search(before) or _NO_AMOUNT_AFTER.match(after) or _NO_AMOUNT_BEFORE.search(before):
            continue
        amount = _amount(match)
        if amount is not None:
            found.append(Number(match[0].strip(), amount, match.start(), match.end()))
    return found


def parse_number(text: str) -> float | None:
    """The value of a text that is one number or one formula without variables, units and all; None otherwise."""
    bare = text.strip().strip("*_`\"'").strip().rstrip(".,;:")
    bare = re.sub(r"\s?\\?%$", "", bare)  # a percentage is asked for and answered in percent
    for text in (bare, split_unit(bare)[0]):
        if (direct := value(text)) is not None:
            return direct
    found = numbers_in(bare)
    return found[0].value if len(found) == 1 else None


def _spelled(word: str) -> float:
    return float(sum(_WORDS[part] for part in re.split(r"[- ]", word.lower())))


def _amount(match: re.Match[str]) -> float | None:
    if match["latex"] or match["fraction"]:
        written = match[0]
        if len(written) > 80:
            return None
        mixed = re.fullmatch(r"(-?)(\d+) (\d+)\s?/\s?(\d+)", written)
        if mixed and int(mixed[4]):
            return (int(mixed[2]) + int(mixed[3]) / int(mixed[4])) * (-1 if mixed[1] else 1)
        return value(written)
    digits = re.sub(r"[,\s$]", "", match["digits"])
    power = re.search(r"-?\d{1,3}(?=\}?$)", match["power"]) if match["power"] else None
    if len(digits) > 40:
        return None
    scale = 10.0 ** int(power[0]) if power and abs(int(power[0])) < 300 else 1.0
    return float(digits) * scale
