r"""Sets of options: "A and C", "AC", a letter on each line, "\boxed{A} and \boxed{C}"."""

from __future__ import annotations

import re

from eval.scoring import cues
from eval.scoring.finding import WHOLE_LIMIT
from eval.scoring.text import plain
from eval.scoring.wording import undressed

_LETTER = r"[\[({\"'*]{0,3}(?:[Oo]ption |[Cc]hoice )?[A-J](?!\w|['\u2019][a-z]|-\w)[\])}\"'*]{0,3}"
_AND = r"(?:\s?[,;&/+]\s?(?:and |& )?|\s(?:and |& )?)"
_SET = rf"{_LETTER}(?:{_AND}{_LETTER}){{0,9}}"
_OPENING = re.compile(
    r"\W{0,6}(?:(?:[Bb]oth|[Aa]ll|[Tt]he|[Oo]ptions?|[Cc]hoices?|[Ll]etters?|[Aa]nswers?|[Ss]tatements?|are|of)[\s:]+)"
    rf"{{0,4}}(?P<set>{_SET})(?!\s?[,/]?\s?or\b)"
)
_WRITTEN_TOGETHER = re.compile(r"\W{0,6}(?P<set>[A-J]{2,6})(?!\w)")
_SMALL = re.compile(r"\W{0,3}[a-j](?:\W{1,3}(?:and )?[a-j])*\W{0,3}")
_NAMED_BEFORE = re.compile(
    rf"(?<!\w)(?P<set>{_SET}) are (?:both |all )?(?:the )?(?:only )?(?:correct|right|true|valid|answers?)\b"
)
_BOXES = re.compile(
    r"\\boxed\{[^\w{}]{0,3}[A-J][^\w{}]{0,3}\}(?:[\s$.,;&]{0,4}(?:and)?[\s$]{0,4}\\boxed\{[^{}]{1,9}\})+"
)
_LETTERS_IN_A_BOX = re.compile(r"\\boxed\{([A-J(][A-J\s,;()]{0,40})\}")
_ITEM = re.compile(rf"(?:[-*\u2022+]\s?)?(?:{_LETTER}|[*(]{{0,3}}(?P<named>[A-J])[).:*]{{1,4}}\s.{{1,200}})[,;.]?")


def find_letters(text: str, count: int) -> tuple[tuple[int, ...], str] | None:
    """(options, rule) of the last statement that names options by letter; None where there is none.

    `count` is the number of options, 0 where it is not known.
    """
    text = _BOXES.sub(lambda match: "\\boxed{" + ", ".join(re.findall(r"\b[A-J]\b", match[0])) + "}", text)
    text = _LETTERS_IN_A_BOX.sub(lambda match: "\\boxed{" + re.sub(r"\s*\n\s*", ", ", match[1]) + "}", text)
    text = one_line(text, count)
    found = [
        (statement.start, indices, statement.rule)
        for statement in cues.boxes(text) + cues.cued(text)
        if (indices := letters_of(undressed(statement.text), count))
    ]
    tail = max(0, len(text) - 4_000)
    found += [
        (tail + match.start(), indices, "cue")
        for match in _NAMED_BEFORE.finditer(text[tail:])
        if (indices := letters_of(match["set"], count))
    ]
    whole = plain(text).strip()
    if not found and len(whole) < WHOLE_LIMIT and "\n" not in whole and (indices := letters_of(whole, count)):
        found.append((0, indices, "whole"))
    return max(found, key=lambda each: each[0])[1:] if found else None


def letters_of(span: str, count: int) -> tuple[int, ...]:
    """The options whose letters a statement begins with, in order; () for none, and for "A or B"."""
    span = span.upper() if _SMALL.fullmatch(span) else span
    match = _WRITTEN_TOGETHER.match(span) or _OPENING.match(span)
    letters = re.findall(r"[A-J](?![a-z])", match["set"]) if match else []
    if match and match.re is _WRITTEN_TOGETHER and letters != sorted(set(letters)):
        return ()  # an abbreviation such as "BAC"
    indices = tuple(dict.fromkeys(ord(letter) - ord("A") for letter in letters))
    return indices if indices and (not count or max(indices) < count) else ()


def one_line(text: str, count: int) -> str:
    r"""`text` with options that stand one a line ("C\nD", "A. x\nC. z") as "A, C"; a list of them all stays."""
    lines: list[str] = []
    items: list[tuple[str, str]] = []
    for line in [*text.split("\n"), "end"]:
        item = _ITEM.fullmatch(line.strip()) if line.strip() else None
        if item:
            items.append((item["named"] or re.findall(r"[A-J](?![a-z])", item[0])[-1], line))
        elif line.strip() or not items:
            letters = [letter for letter, _ in items]
            listing = letters == [chr(ord("A") + place) for place in range(count or max(3, len(items)))]
            lines += [", ".join(letters)] if len(items) > 1 and not listing else [written for _, written in items]
            items = []
            lines.append(line)
    return "\n".join(lines[:-1]).strip()
