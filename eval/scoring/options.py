"""Which option a response chooses: by letter, by the option's text, by its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from eval.scoring.numbers import parse_number
from eval.scoring.wording import key_of, stem, tight, undressed

_LISTED = re.compile(r"(?:^|(?<=[\s;,.?:]))(?:\(([A-J])\)|([A-J])\s?[.):])\s*", re.MULTILINE)
_START_LETTER = re.compile(
    r"^[\s({\[\"'<:.]*(?:(?:the )?(?:option|choice|letter|answer|figure|image|picture|diagram)s?\s*)?[({\[\"'<]*\s*"
    r"([A-Za-z])(?!'[a-z])\s*(?P<close>[)}\]\"'>.:,;\u3002]+|(?=\s|$|[^\w\s]))",
    re.IGNORECASE,
)
_MORE_LETTERS = re.compile(r"\s*(?:,|and|&|or|/|\\&)\s*(?:and |or |option )?\(?([A-Z])\)?(?![\w'])")
_LOWER_LETTERS = re.compile(r"\W{0,3}[a-j](?:\W{1,3}(?:and )?[a-j])*\W{0,3}")
_ARTICLE_AFTER = re.compile(r"\s+[a-z]")
_BRACKETED = re.compile(
    r"(?<![\w\\])\(\s?([A-J])\s?\)(?!\w)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)s?:? \(?([A-J])\b\)?(?!['\u2019]|-\w)"
    r"|(?:^|\n)\s*([A-J])[.)](?=\s|$)"
)
_LABELLED = re.compile(r"[^\d:=]*[a-zA-Z]{2,}[^\d:=]*:")
_PROSE_WORD = re.compile(r"[a-zA-Z]{2,}")
_LONE = re.compile(r"(?<![\w'\\$.-])([A-J])(?![\w'-]|\s?[=<>+*/^])")
_FORMULA = re.compile(r"\d\s*[-,+/:^]\s*-?\d|\\|\u221a|[\[(]\s*-?\d|\d[a-z]?\s*[=+*^]")


SPAN_LENGTH = 300
"""How far into a statement an option is looked for."""


@dataclass(frozen=True)
class Choice:
    """Letters that a piece of text names, as indices into the options; an index past the end names no option."""

    indices: tuple[int, ...]
    text: str


def listed_options(question: str) -> tuple[str, ...]:
    """The options written inside a question as "(A) x (B) y", "A. x B. y" or "A:x"; () where there are none.

    Letters must run A, B, C, ... in order; the last such run counts.
    """
    runs: list[list[tuple[int, int]]] = []
    for match in _LISTED.finditer(question):
        letter = match[1] or match[2]
        if letter == "A":
            runs.append([(match.start(), match.end())])
        elif runs and ord(letter) - ord("A") == len(runs[-1]):
            runs[-1].append((match.start(), match.end()))
    run = next((run for run in reversed(runs) if len(run) > 1), [])
    ends = [start for start, _ in run[1:]] + [len(question)] if run else []
    return tuple(question[start:end].strip(" ,;\n") for (_, start), end in zip(run, ends, strict=True))


def read_choice(span: str, choices: Sequence[str], mid_sentence: bool = False, mention: bool = True) -> Choice | None:
    """The option(s) that the beginning of `span` names: by an option's wording, by letter, by value, by mention.

    A letter wins over the text after it. `mid_sentence` says that a capital A cannot be the article; without
    `mention`, an option's wording inside a longer text does not count.
    """
    span = span[:SPAN_LENGTH]
    if (index := _same_wording(span, choices)) is not None:
        return Choice((index,), span)
    bare = undressed(span)
    if named := _by_letter(bare, choices, mid_sentence):
        return named
    if (index := by_text(span, choices)) is not None:
        return Choice((index,), span)
    found = mentioned(re.split(r"(?<=[a-z\d)])\. ", bare, maxsplit=1)[0], choices) if mention else ()
    return Choice(found, bare) if len(found) == 1 else None


def _by_letter(bare: str, choices: Sequence[str], mid_sentence: bool) -> Choice | None:
    bare = bare.upper() if _LOWER_LETTERS.fullmatch(bare) else bare
    match = _START_LETTER.match(bare)
    if not match:
        return None
    small = mid_sentence and match[1] in "bcdefgh"  # "the answer is b because": no other word is a single letter
    if not (match[1].isupper() or match["close"] or small or not bare[match.end() :].strip()):
        return None
    rest = bare[match.end() :]
    article = match[1] in "AaI" and not match["close"] and _ARTICLE_AFTER.match(rest) and not _says(rest, choices, 0)
    more = _MORE_LETTERS.match(bare, match.end(1))
    if article and not more and not (mid_sentence and match[1] == "A"):
        return None
    indices = [ord(match[1].upper()) - ord("A")]
    place = match.end(1) if "," in match["close"] else match.end()
    if (more := _MORE_LETTERS.match(bare, place)) and "or" in more[0]:
        return None  # "A or B" commits to neither
    while more := _MORE_LETTERS.match(bare, place):
        indices.append(ord(more[1]) - ord("A"))
        place = more.end()
    if choices and max(indices) >= len(choices) and not re.search(r"[)\]:]", match["close"]):
        return None  # "N/A", "I see ...": no letter of an option
    return Choice(tuple(dict.fromkeys(indices)), bare[: max(place, match.end())])


def _says(rest: str, choices: Sequence[str], index: int) -> bool:
    """Whether the text after a letter is the option of that letter."""
    return bool(choices) and bool(key_of(choices[index])) and key_of(rest).startswith(key_of(choices[index]))


def by_text(span: str, choices: Sequence[str]) -> int | None:
    """The only option that `span` as a whole equals, in wording or in value (units apart)."""
    if (index := _same_wording(span, choices)) is not None:
        return index
    bare = undressed(span)
    number = parse_number(bare) if len(bare) < 60 and len(_PROSE_WORD.findall(bare)) < 3 else None
    return by_value(number, choices) if number is not None and not _LABELLED.match(bare) else None


def _same_wording(span: str, choices: Sequence[str]) -> int | None:
    key = key_of(span) if len(span) < 500 else ""
    equal = {index for index, choice in enumerate(choices) if len(choice.strip()) > 1 and key_of(choice) == key}
    return equal.pop() if key and len(equal) == 1 else None


def by_value(number: float, choices: Sequence[str]) -> int | None:
    """The only option with this value."""
    equal = {
        i for i, choice in enumerate(choices) if (other := _choice_value(choice)) is not None and _near(number, other)
    }
    return equal.pop() if len(equal) == 1 else None


def any_numeric(choices: Sequence[str]) -> bool:
    """Whether any option is a number or a formula without variables."""
    return any(_choice_value(choice) is not None for choice in choices)


def mentioned(sentence: str, choices: Sequence[str]) -> tuple[int, ...]:
    """The options whose wording stands in `sentence` as whole words, those inside longer ones left out, in order."""
    key, math = f" {key_of(sentence)} ", ""
    spans = []
    for index, choice in enumerate(choices):
        words = key_of(choice)
        if _FORMULA.search(choice):
            math = math or tight(sentence)
            at = re.search(rf"(?<![\d.]){re.escape(tight(choice))}(?![\d\u221a]|\.\d)", math)
            if at:
                spans.append((at.start(), at.end(), index))
            continue
        if len(words) == 1 and words.isalpha():
            at = re.search(rf"(?<![\w'(]){re.escape(choice.strip())}(?![\w'])", sentence)
            start, length = (at.start(), 1) if at and choice.strip() not in ("A", "I", "a") else (-1, 0)
        else:
            start, length = (key.rfind(f" {words} "), len(words)) if words else (-1, 0)
        if start >= 0:
            spans.append((start, start + length, index))
    kept = [
        one
        for one in spans
        if not any(
            o is not one and o[0] <= one[0] and one[1] <= o[1] and (o[1] - o[0]) > (one[1] - one[0]) for o in spans
        )
    ]
    return tuple(index for _, _, index in sorted(kept))


def worded(sentence: str, choices: Sequence[str]) -> tuple[int, ...]:
    """The options all of whose words stand in `sentence` in some inflexion ("flipped" for "flip"), in their order."""
    words = [stem(word) for word in key_of(sentence).split()]
    found = []
    for index, choice in enumerate(choices):
        rest = iter(words)
        parts = [stem(word) for word in key_of(choice).split()]
        if (len(parts) > 1 or len(parts[0] if parts else "") > 3) and all(
            any(word == part for word in rest) for part in parts
        ):
            found.append(index)
    return tuple(found)


def distinguished(sentence: str, choices: Sequence[str]) -> tuple[int, ...]:
    """The options named by the words that the others lack: "odd" of "an odd function" and "an even function"."""
    words = [key_of(choice).split() for choice in choices]
    shared = set(words[0]).intersection(*words[1:]) if len(words) > 1 else set()
    own = [" ".join(word for word in each if word not in shared) for each in words]
    if not shared or not all(re.search("[a-z]{3}", each) for each in own):
        return ()
    return mentioned(sentence, own)


def bracketed(text: str, count: int) -> list[tuple[int, int]]:
    """(place, index) of each "(B)", "option B" or line that begins with "B."."""
    found = []
    for match in _BRACKETED.finditer(text):
        index = ord(match[1] or match[2] or match[3]) - ord("A")
        if index < count:
            found.append((match.start(), index))
    return found


def lone_letters(sentence: str, count: int) -> set[int]:
    """Capital letters standing alone ("cog B"), the article "A" and the beginnings of names ("J. Smith") left out."""
    found = set()
    for match in _LONE.finditer(sentence):
        article = (
            match[1] in "AI"
            and _ARTICLE_AFTER.match(sentence, match.end())
            and (match.start() == 0 or not sentence[: match.start()].rstrip()[-1:].isalpha() or match[1] == "I")
        )
        index = ord(match[1]) - ord("A")
        if index < count and not article:
            found.add(index)
    return found


@lru_cache(maxsize=4096)
def _choice_value(choice: str) -> float | None:
    return parse_number(undressed(choice)) if len(choice) < 60 else None


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * max(abs(one), abs(other))
