"""Final-answer statements: `\\boxed{}`, "the answer is ...", "... is the correct option", 故选, and their order."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from eval.scoring.text import any_of, plain

_KIND = any_of(
    "final", "correct", "right", "best", "closest", r"most \w{1,20}", "appropriate", "numerical", "only", "integer"
)
_FINAL = "final " + any_of("solution", "value", "result", "number", "count", "total")
_NOT_MEANT = "".join(rf"(?<!\b{word} )" for word in ("other", "wrong", "given", "available", "incorrect", "remaining"))
_DETAIL = any_of("letters?", "choices?", "options?", "value", "number", "integer", "here")
_SET = any_of("(?<=correct )", "(?<=right )", "(?<=two )", "(?<=both )") + any_of("options", "choices", "letters")
_NAME = (
    _NOT_MEANT
    + any_of("answers?", "ans", "option", "choice", _SET, _FINAL, "guess", "estimate")
    + rf"(?: {_DETAIL}){{0,3}}"
)
_ASKED = (
    rf"(?: {any_of('to', 'for', 'of', 'in', 'from', 'among', 'that', 'which', 'based', 'given')}\b[^\n]{{0,160}}?)?"
)
_MODAL = any_of("would", "should", "will", "must", "could", "can", "might", "may")
_VERB = any_of("is", "are", "was", _MODAL + " be", "becomes")
_IS = rf"(?:[\"']?\s*(?:[:=]|->)\s*|\s+(?:{_VERB}|(?:appears|seems) to be)\b)"
_FILLER = any_of("therefore", "thus", "indeed", "simply", "as follows", "likely", "most likely", "probably", "that")
_POINTER = any_of("the", "option", "choice", "answer", "letter", "correct", "that")
_WHO = any_of("i", "i'd", "i'll", "we", "you", _MODAL, "and", "so", "to", "let's", "therefore", "thus")
_CHINESE_ANSWER = "(?:正确)?(?:的)?(?:答案|选项|结果)(?:应该|应)?(?:是|为|选)?"
_FORWARD = re.compile(
    any_of(
        rf"\b(?:{_KIND} ){{0,4}}{_NAME}{_ASKED}{_IS}"
        rf"(?:\s*{any_of(_FILLER, 'option', 'choice', 'letter', '[:,]')}){{0,5}}",
        rf"\b(?:{_WHO} (?:{_MODAL} )?(?:choose|select|pick|go with|answer with)|i(?:'d| would) say)"
        rf"(?:\s+{_POINTER}){{0,4}}[:\s]",
        r"\b(?:corresponds?|match(?:es|ing)?|equivalent|leads?|points?) (?:to |with )?(?:the )?"
        r"(?:option|choice|answer|letter)s?(?: letter)?[:\s]",
        rf"(?:故选|故答案|应选|应该选|所以选|因此选|{_CHINESE_ANSWER}|选择|(?<!挑)选(?=\s?\(?[A-I]))\s*[:,]?\s*(?:选项|为|是)?",
    ),
    re.IGNORECASE,
)
_RIGHT = any_of(
    *(
        "correct",
        "right",
        "appropriate",
        "suitable",
        "accurate",
        "logical",
        "plausible",
        "answer",
        "solution",
        "closest",
    ),
    "best",
)
_BACKWARD = re.compile(
    r"(?:^|[\s,;:])(?:the )?(?:(?:option|choice|answer|statement|letter) )?\(?(?P<letter>[A-Z])\)?"
    r"(?:[.,:)] [^\n.]{0,80}?)?,? (?:is|would be|seems to be|appears to be|must be) "
    rf"(?:likely |probably |indeed |therefore |thus |clearly )?(?:the )?(?:most |only |best )?{_RIGHT}\b"
    r"(?= (?:answer|option|choice|one|solution|here|match|fit|because|since|as|given)|[.,!*)]|\s*$)",
)
_CONDITIONAL = re.compile(
    r"(?:^|[,;:.]\s|\n)\s*(?:-\s*|but |and )?(?:if|otherwise|unless|when|in case|assuming|suppose)\b", re.IGNORECASE
)
_NEXT_LINE_LIMIT = 80
STATEMENT_LENGTH = 600
STATEMENTS = 40
"""Of more statements of one sort only the last ones are looked at: the last commitment wins."""

_WORD = r"(?!and\b|or\b|not\b)[a-z]+"
_ENDS_WITH_LETTER = re.compile(
    r"\b(?i:is|are|be|=|choose|select|pick|(?:so|thus|hence|therefore),?)"
    r"(?: likely| probably| most likely| indeed| therefore)?"
    rf"(?: (?:the )?{_WORD}(?: {_WORD})?)?? [\"'(]{{0,2}}([A-J])[\"')]{{0,2}}(?=[.!]?\s*(?:\n|$)|\. )"
)
_JSON_VALUE = re.compile(r'"((?:[^"\\]|\\.){1,400})"|([^",}\]\n]{1,400})')
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_BOX = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\.|[{}]|\\+boxed\s+(\S+)", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """Where a commitment stands and what it says; `rule` names how it was recognised.

    `mid_sentence`: the text goes on a sentence ("the answer is A"), where a capital A is no article.
    """

    start: int
    text: str
    rule: str
    mid_sentence: bool = False


def boxes(text: str) -> list[Statement]:
    """Every `\\boxed{}` whose braces balance, outermost only, in order (and "\\boxed 5", which has none)."""
    found: list[Statement] = []
    stack: list[int | None] = []
    for match in _BOX.finditer(text):
        token = match[0]
        if match[1]:
            found.append(Statement(match.start(), match[1], "box"))
        elif token == "}":
            if stack and (start := stack.pop()) is not None and not any(place is not None for place in stack):
                found.append(Statement(start, text[start : match.start()].strip()[:STATEMENT_LENGTH], "box"))
        elif token.endswith("{") and token != "\\{":
            stack.append(match.end() if token != "{" else None)
    return [box for box in found if box.text][-STATEMENTS:]


def cued(text: str) -> list[Statement]:
    """What follows each final-answer cue, up to the end of its line (or the next line where its own is empty)."""
    found = []
    for match in _last(_FORWARD, text):
        if is_conditional(text, match.start()):
            continue
        rest = text[match.end() : match.end() + STATEMENT_LENGTH].lstrip(" *_:\t$")
        if (value := _JSON_VALUE.match(rest)) and re.search(r"\"\s*:\s*$", match[0]):
            found.append(Statement(match.start(), (value[1] or value[2]).replace("\\\\", "\\").strip(), "cue"))
            continue
        lines = [line for line in (plain(line).strip() for line in rest.split("\n")[:4]) if line.strip("*_:$`[]\\ ")]
        if lines and (lines[0] in plain(rest.partition("\n")[0]) or len(lines[0]) <= _NEXT_LINE_LIMIT):
            mid = match[0].rstrip()[-1:].isalpha() and lines[0][:20] in plain(rest.partition("\n")[0])
            found.append(Statement(match.start(), lines[0].lstrip(":*_ ").strip(), "cue", mid))
    return found


def emphasised(text: str) -> list[Statement]:
    """What stands in bold."""
    return [Statement(match.start(), match[1].strip(), "bold") for match in _last(_BOLD, text)]


def named_before(text: str) -> list[Statement]:
    """Letters in "(B) is the correct answer", "option B would be right", "the piece that fits is B."."""
    found = [(match.start(), match["letter"]) for match in _last(_BACKWARD, text)]
    found += [(match.start(), match[1]) for match in _last(_ENDS_WITH_LETTER, text)]
    return [Statement(start, letter, "cue") for start, letter in found if not is_conditional(text, start)]


def _last(pattern: re.Pattern[str], text: str) -> deque[re.Match[str]]:
    return deque(pattern.finditer(text), maxlen=STATEMENTS)


def is_conditional(text: str, at: int) -> bool:
    """Whether the clause before `at` in the same sentence makes it conditional ("if .. then the answer is (A)")."""
    begin = max(text.rfind(end, max(0, at - 300), at) for end in (". ", "\n", "? ", "! "))
    return bool(_CONDITIONAL.search(text[begin + 1 if begin >= 0 else max(0, at - 300) : at]))
