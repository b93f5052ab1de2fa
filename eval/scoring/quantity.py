"""The number that a response ends up with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.scoring.cues import Statement
from eval.scoring.numbers import Number, numbers_in, parse_number
from eval.scoring.refusal import is_refusal
from eval.scoring.wording import undressed

_CONCLUDING = re.compile(
    r"\b(?:therefore|thus|hence|so|in conclusion|consequently|finally|in total|altogether|overall|this means|we get"
    r"|we have|we can conclude|total|final)\b|所以|因此|答",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[,;:]\s+(?=(?:which|so|because|since|as|while|where|but|and (?:the|this|that|it)|meaning|with|if|based|or"
    r"|followed|compared|versus|then)\b)|\("
)
_SO = re.compile(r"[,;]\s+(?:and )?(?:so|therefore|thus|hence|leaving)\b", re.IGNORECASE)
_BOUND = re.compile(
    r"\b(?:(?:more|greater|larger|bigger|higher|less|fewer|smaller|lower) than|over|above|below|under|at least|at most)"
    r"\W+$",
    re.IGNORECASE,
)
_LEADS = re.compile(
    r"(?:=|\u2248|\bapprox|\b(?:is|are|was|were|be|equals?|to|of|about|approximately|around|roughly|exactly|only|has|have"
    r"|shows?|gives?|get|gets|costs?|spends?|spent|need|needs|makes?|made|there|total|number|remain|left|by|as))"
    r"\W*(?:(?:the|an?|number|total|only|about|approximately|around|exactly) |\$){0,5}$",
    re.IGNORECASE,
)
_OPENS_CONCLUSION = re.compile(
    r"\W*(?:and )?(?:therefore|thus|hence|so|in conclusion|consequently|finally|in total|altogether|overall|in summary)"
    r"\b|所以|因此|答",
    re.IGNORECASE,
)
_CONTENT = re.compile(r"[a-z]{3,}|[\u4e00-\u9fff]")
_UNIT = re.compile(r"\(Unit: ([^()\s][^()]*)\)")
_HEAD = re.compile(r"\b(?:what(?: is| are| was|'s)|find|calculate|determine|estimate|compute) (?:the )?([a-z]{4,})")
_NONE = re.compile(
    r"\bthere (?:are|is|were|was|will be|would be) (?:no|none)\b|\b(?:leaves?|left with|leaving) (?:us with )?no\b",
    re.I,
)
_EQUALS_NUMBER = re.compile(r"=\s?\$?-?\d")
_EQUALS = re.compile(r"(?:=|\\approx|\u2248|\bequals?(?: to)?\b)\s*(?:approximately |about )?[\s$({\\\[]*$")


def last_number(span: str, question: str) -> Number | None:
    """The number that a span ends up with: one that the question did not give, after its last "=", else after "is"."""
    text = undressed(span)
    asked = {number.value for number in numbers_in(undressed(question))}
    found = [number for number in numbers_in(text) if not (number.value in asked and _is_bound(text, number))]
    if not found:
        return None
    if concluded := [number for number in found if number.start > max(_ends(_SO, text), default=len(text))]:
        found = concluded
    fresh = [number for number in found if number.value not in asked] or found
    fresh = _of_the_kind_asked(fresh, text, question)
    after_equals = [number for number in fresh if _EQUALS.search(text[max(0, number.start - 30) : number.start])]
    if after_equals:
        return after_equals[-1]
    leading = [number for number in fresh if _LEADS.search(text[max(0, number.start - 40) : number.start])]
    return (leading or fresh)[0] if len(fresh) > 1 and _CLAUSE.search(text) else (leading or fresh)[-1]


def _is_bound(text: str, number: Number) -> bool:
    """Whether a number is a limit that the question set: "values larger than 30"."""
    return bool(_BOUND.search(text[max(0, number.start - 30) : number.start]))


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    return [match.end() for match in pattern.finditer(text)]


def _of_the_kind_asked(found: list[Number], text: str, question: str) -> list[Number]:
    """Years where a year is asked for, percentages where a percentage is; all where there are none."""
    if re.search(r"\b(?:which|what) (?:\w+ )?years?\b", question, re.IGNORECASE):
        return [number for number in found if 1000 <= number.value < 3000 and "," not in number.text] or found
    if re.search(r"\b(?:what|which|how many) (?:\w+ ){0,2}(?:percent|percentage)\b", question, re.IGNORECASE):
        return [number for number in found if re.match(r"\s?(?:%|percent)", text[number.end :])] or found
    return found


def only_number(text: str, question: str) -> Number | None:
    """The number of a text that has exactly one (a formula counts as one), "%" included; not a limit in a sentence."""
    text = text.strip()
    value = parse_number(text)
    if value is None:
        return None
    found = numbers_in(bare := undressed(text))
    if len(found) != 1 or found[0].value != value:
        return Number(bare, value, 0, len(bare))
    number = found[0]
    if _is_bound(bare, number) and number.value in {each.value for each in numbers_in(undressed(question))}:
        return None
    percent = "%" if re.match(r"\s?\\?%", bare[number.end :]) else ""
    return Number(number.text + percent, value, number.start, number.end)


def _opens(text: str, number: Number) -> bool:
    """Whether a statement begins with its number ("5, as there are 3 red and 2 blue ones") and computes nothing."""
    begins = re.fullmatch(r"[\s$({\[]*(?:approximately |about |only |around |roughly |exactly )?", text[: number.start])
    return bool(begins) and not re.match(r"\s*(?:[-+*/^<>\u00d7:%]|out of|to |and |or |\\)", text[number.end :])


def in_statement(statement: Statement, question: str) -> Number | None:
    """The number in a box or after a cue."""
    if len(statement.text) < 200 and (number := only_number(statement.text, question)):
        return number
    if statement.rule == "box" and re.search(r"\\(?:sqrt|frac|pi)|[a-z]\^", statement.text):
        return None  # a formula with variables: its last digit is no answer
    sentence = re.split(r"(?<=[\w)%$}])[.!?](?=\s|$)|\n", statement.text, maxsplit=1)[0]
    text = undressed(sentence)
    if "=" not in text and (found := numbers_in(text)) and _opens(text, found[0]):
        return found[0]
    return last_number(sentence, question)


def none_counted(text: str, question: str) -> bool:
    """Whether a question of how many is answered with "there are no ..."."""
    return "how many" in question.lower() and bool(_NONE.search(text))


def in_prose(parts: Sequence[str], question: str) -> Number | None:
    """The number of the sentence that answers the question: it takes up its words, concludes, computes, stands last."""
    asked = " ".join(question.split()).lower()
    unit = _UNIT.search(question)
    target = _target(asked)
    wanted = set(_CONTENT.findall(target))
    head = _HEAD.search(target)
    best, best_score = None, -1.0
    counting = "how many" in target
    for place, part in enumerate(parts):
        none = counting and _NONE.search(part)
        if is_refusal(part) or " ".join(part.rstrip(".").split()).lower() in asked:
            continue
        if not none and not numbers_in(undressed(part)):
            continue
        score = len(wanted & set(_CONTENT.findall(part.lower()))) / len(wanted) if wanted else 0.0
        score += 0.6 if _OPENS_CONCLUSION.match(part) else 0.2 if _CONCLUDING.search(part) else 0.0
        score += 0.4 * bool(head and head[1] in part.lower()) + 0.4 * bool(
            unit and unit[1].split()[0].strip(",") in part
        )
        score += 0.2 * (place == len(parts) - 1) + 0.15 * (place == 0) + 0.15 * bool(_EQUALS_NUMBER.search(part))
        if score >= best_score:
            best, best_score = part, score
    if best and counting and (none := _NONE.search(best)):
        return Number(none[0], 0.0, none.start(), none.end(), True)
    return last_number(best, question) if best else None


def _target(asked: str) -> str:
    """The sentence of a question that asks: the last with a question mark, else the last."""
    found = [part for part in re.split(r"(?<=[.?!]) ", _UNIT.sub("", asked[-1_500:])) if part.strip(" '\"")]
    questions = [part for part in found if "?" in part]
    return (questions or found or [""])[-1]
