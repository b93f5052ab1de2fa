"""The option that a response chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.scoring import cues, options, polarity, quantity
from eval.scoring.finding import NOTHING, WHOLE_LIMIT, Finding, declined
from eval.scoring.numbers import parse_number
from eval.scoring.refusal import is_refusal
from eval.scoring.text import plain, sentences

_CONCLUDING = re.compile(
    r"\b(?:therefore|thus|hence|so|in conclusion|consequently|answer|conclude|overall)\b|所以|因此",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|isn't|aren't|rather than|instead of|unlike|except|cannot|neither|no)\b", re.IGNORECASE)
_UNDECIDED = re.compile(
    r"(?:cannot|can't|can not|impossible to|not possible to|unable to) (?:be )?(?:determine|tell|say|decide)"
    r"|insufficient (?:information|data)|not enough information|不能确定|无法确定",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r",? (?:rather than|instead of|unlike|as opposed to)\b[^,.;]*|, (?:and )?not (?:an? |the )?[^,.;]*", re.IGNORECASE
)
_CONDITIONAL = re.compile(r"\W*(?:but |and )?(?:if|otherwise|unless|assuming|suppose)\b(?![^,]*,[^,]*=)", re.IGNORECASE)
_SUBORDINATE = re.compile(
    r",?\s+(?:if|when|as|because|since|while|whereas|although|that|which|where|so that|but"
    r"|followed by|compared (?:to|with))\b.*$"
    r"|^\W*(?:if|when|as|because|since|while|whereas|although)\b[^,]*,\s*",
    re.IGNORECASE | re.DOTALL,
)
_LETTER_AND_MORE = re.compile(r"[({\[]?[A-J][)}\].:]+\s+\S")
_LISTING = re.compile(r"[({\[]?([A-J])[)}\].:]+\s")


def find_choice(text: str, choices: Sequence[str], question: str) -> Finding:
    """The option(s) a text chooses: as a whole, by its last strong statement, else by weaker and weaker signs."""
    whole = plain(text).strip()
    short = len(whole) < WHOLE_LIMIT and "\n" not in whole
    if short and (named := options.read_choice(whole, choices, mention=False)):
        return chosen(named.indices, "first line" if _LETTER_AND_MORE.match(whole) else "whole", choices)
    parts = sentences(plain(text))
    if strong := _strong_choices(text, choices):
        _, indices, rule = strong[-1]
        return chosen(indices, rule, choices)
    stray = _stray_value(text, choices)
    refused = declined(text, parts)
    if refused and not stray:
        return _declining_option(parts, choices) or refused
    if (polar := _polar(choices)) and parts:
        verdict = polarity.stated(parts[0])
        verdict = polarity.in_prose(question, parts) if verdict is None else verdict
        if verdict is not None:
            index = polar[0] if verdict else polar[1]
            return chosen((index,), "polarity", choices)
    letters = {index for _, index in options.bracketed(plain(text), len(choices) or 5)}
    if len(letters) == 1:
        return chosen(tuple(letters), "bracketed", choices)
    return stray or _weak_choice(parts, choices, question)


def _declining_option(parts: Sequence[str], choices: Sequence[str]) -> Finding | None:
    """The option "cannot be determined" where there is one and the response says just that."""
    indices = [index for index, choice in enumerate(choices) if _UNDECIDED.search(choice)]
    said = any(_UNDECIDED.search(part) for part in parts)
    if not said or len(indices) != 1:
        return None
    return chosen((indices[0],), "declines as an option does", choices)


def _polar(choices: Sequence[str]) -> tuple[int, int] | None:
    """The places of yes and no (or true and false) among the options."""
    plain_choices = [choice.strip().strip(".").lower() for choice in choices]
    for yes, no in (("yes", "no"), ("true", "false")):
        if yes in plain_choices and no in plain_choices:
            return plain_choices.index(yes), plain_choices.index(no)
    return None


def _strong_choices(text: str, choices: Sequence[str]) -> list[tuple[int, tuple[int, ...], str]]:
    """(place, options, rule) of every explicit commitment, in order."""
    found: list[tuple[int, tuple[int, ...], str]] = []
    statements = cues.boxes(text) + cues.cued(text) + cues.named_before(text)
    for statement in statements:
        named = options.read_choice(statement.text, choices, statement.mid_sentence)
        if named and not _NEGATED.match(statement.text):
            found.append((statement.start, named.indices, statement.rule))
    for bold in cues.emphasised(text):
        index = options.by_text(bold.text, choices)
        if index is not None and text.count("\n", bold.start) <= 1:
            found.append((bold.start, (index,), "bold"))
    found += _outer_lines(text, choices)
    return sorted(found, key=lambda each: each[0])


def _outer_lines(text: str, choices: Sequence[str]) -> list[tuple[int, tuple[int, ...], str]]:
    """The first and the last line where they are an option, or begin with its letter and list no others."""
    found: list[tuple[int, tuple[int, ...], str]] = []
    lines = [line.strip() for line in plain(text).split("\n") if line.strip()]
    for place, line, rule in ((0, lines[0], "first line"), (len(text), lines[-1], "last line")) if lines else ():
        bare = re.match(r"[({\[]?([A-J])[)}\].:]+(?:\s|$)|([A-J])$", line)
        if len(line) < 2 * WHOLE_LIMIT and bare:
            index = ord(bare[1] or bare[2]) - ord("A")
            listing = bare[1] and any(_LISTING.match(other) for other in lines if other is not line)
            if index < (len(choices) or 10) and not listing:
                found.append((place, (index,), rule))
        elif (index := options.by_text(line, choices)) is not None:
            found.append((place, (index,), rule))
    return found


def _stray_value(text: str, choices: Sequence[str]) -> Finding | None:
    """A committed value that is no option at all."""
    statements = cues.boxes(text) or cues.cued(text)
    for statement in reversed(statements):
        number = parse_number(statement.text) if len(statement.text) < 40 else None
        if number is not None:
            return Finding(statement.text, "stray value", "unparsed", (), number)
    return None


def _weak_choice(parts: Sequence[str], choices: Sequence[str], question: str) -> Finding:
    """The only option named in a concluding sentence (the last first), else in the first, the last, any other one."""
    listed = [part for part in parts if _LISTING.match(part)]
    parts = [part for part in parts if part not in listed] if len(listed) > 2 else parts
    concluding = [part for part in reversed(parts) if _CONCLUDING.search(part)]
    # Options that are numbers are echoed on the way to another number: for them the middle says nothing.
    others = parts[-1:] if options.any_numeric(choices) else parts[::-1]
    ordered = dict.fromkeys([*concluding, *parts[:1], *others])
    ordered = [_CONTRAST.sub("", part) for part in ordered if not is_refusal(part)]
    for part in ordered:
        letters = {index for _, index in options.bracketed(part, len(choices) or 5)}
        if len(letters) == 1 and not _CONDITIONAL.match(part):
            return chosen(tuple(letters), "bracketed in sentence", choices)
        named = options.mentioned(part, choices)
        for clause in (part, _SUBORDINATE.sub("", part)):
            if len(said := options.mentioned(clause, choices)) == 1 and not _denied(clause, choices[said[0]]):
                return chosen(said, "option text", choices)
        if not named and _all_letters(choices) and len(lone := options.lone_letters(part, len(choices) or 5)) == 1:
            return chosen(tuple(lone), "lone letter", choices)
        number = quantity.last_number(part, question)
        index = options.by_value(number.value, choices) if number else None
        if index is not None and (not named or index in named):
            return chosen((index,), "option value", choices)
    for part in ordered:
        if len(named := options.worded(part, choices)) == 1 and not _NEGATED.search(part):
            return chosen(named, "option words", choices)
    for part in ordered[:2]:
        if len(named := options.distinguished(part, choices)) == 1 and not _NEGATED.search(part):
            return chosen(named, "option words", choices)
    number = quantity.in_prose(parts, question)
    return Finding(number.text, "stray value", "unparsed", (), number.value) if number else NOTHING


def _denied(sentence: str, choice: str) -> bool:
    """Whether a sentence denies what an option says; an option may be a denial itself ("is not a square")."""
    return bool(_NEGATED.search(sentence)) and not _NEGATED.search(choice)


def _all_letters(choices: Sequence[str]) -> bool:
    """Whether the options stand in the picture: the text has only their letters, or nothing."""
    return sum(not choice.strip() or bool(re.fullmatch(r"\W*[A-J]\W*", choice)) for choice in choices) >= min(
        2, len(choices)
    )


def chosen(indices: tuple[int, ...], rule: str, choices: Sequence[str]) -> Finding:
    """The finding for options named by index; one past the last option is no answer."""
    letters = ", ".join(chr(65 + index) for index in sorted(indices))
    if choices and max(indices) >= len(choices):
        return Finding(letters, rule + ", no such option", "unparsed", ())
    return Finding(letters, rule, "answered", indices)
