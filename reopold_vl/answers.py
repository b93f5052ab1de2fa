"""Is this response right? Final answers found in text and compared with gold: strings only, rules only, no model.

A response without a recognisable final answer is wrong; nothing is ever guessed from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from reopold_vl.types import VisualSample

RELATIVE_TOLERANCE = Fraction(1, 10**6)
MAX_NUMBER_LENGTH = 64

_CUE = re.compile(r"\banswers?[*_ ]{0,4}(?:\bis\b|\bare\b|[:=\uff1a])[*_ ]{0,4}[:\uff1a]?", re.IGNORECASE)
_BOX = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.?](?=\s|$)")
_LETTER = re.compile(r"\(?([A-Z])\)?")
_LETTER_AND_TEXT = re.compile(r"\(?([A-Z])(?:[).:]|\) ?[.:])\s*(\S.*)", re.DOTALL)
_OPTION_WORD = re.compile(r"^(?:option|choice)\s+", re.IGNORECASE)

_MINUS_SIGNS = "\u2212\u2010\u2011\u2012\u2013\u2014"
_CHARACTERS = str.maketrans(
    {**dict.fromkeys(_MINUS_SIGNS, "-"), "\u00b0": "", "\u201c": '"', "\u201d": '"', "\f": "\\f"}
)
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|boxed|operatorname)\s*\{([^{}]*)\}")
_NOISE = re.compile(
    r"\\(?:left|right|displaystyle|degree|circ)(?![a-z])|\^\s*(?:\\circ(?![a-z])|\{\s*\\circ\s*\})|\\[,!;:() \[\]]"
    r"|\\?\$|[*`]{2,}|~|(?<![a-z])degrees?(?![a-z])"
)
_FRACTION = re.compile(r"\\frac\s*(?:\{\s*([^{}]*)\}\s*\{\s*([^{}]*)\}|(\d)\s*(\d))")
_ASSIGNMENT = re.compile(r"^\\?[a-z]{0,2}\s*=\s*(?=[^=]+$)")
_UNITS = (
    "mm|cm|km|meters?|metres?|in|inch|inches|ft|foot|feet|yards?|miles?|units?|kg|grams?|mph|ml|liters?|litres?"
    "|seconds?|minutes?|hours?|days?|weeks?|months?|years?|dollars?|cents?|radians?|points?"
)
_UNIT = re.compile(rf"(?<=[\d)%])\s*(?:square|sq|cubic)?\.?\s*(?:{_UNITS})\.?\s*(?:\^?\{{?[23²³]\}}?)?$")
_DECIMAL = r"(?:\d+(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?"
_NUMBER = re.compile(rf"([+-]?)\(?(?:(\d+) )?({_DECIMAL})\)?(?:/\(?({_DECIMAL})\)?)?(%?)")


def extract_answer(text: str, choices: Sequence[str] | None = None) -> str | None:
    r"""The final answer that a response states, or None.

    Looked for in what follows the last `</think>`, in this order: the last `\boxed{}` whose braces balance; the last
    `<answer>` tag pair; what follows the last cue ("Answer:", "the answer is") up to the end of its sentence. With
    `choices`, a response that is nothing but an option's letter or text counts as well. Linear in the length.
    """
    text = text.rpartition("</think>")[2]
    for found in (_last_box(text), _last_tag(text), _after_cue(text)):
        if found is not None:
            return found.strip() or None
    bare = _bare(text)
    return bare if choices and choice_index(bare, choices) is not None else None


def normalise(answer: str) -> str:
    """One spelling for answers that mean the same: lower case, without LaTeX dress, degree signs, currency, outer
    punctuation, `x =` before it and spaces (kept between digits); simple fractions become `a/b`."""
    text = (
        " ".join(answer.translate(_CHARACTERS).split())
        .lower()
        .replace("\\%", "%")
        .replace("\\dfrac", "\\frac")
        .replace("\\tfrac", "\\frac")
    )
    text = _NOISE.sub("", text)
    for _ in range(3):
        text = _WRAPPER.sub(r"\1", text)
    text = _FRACTION.sub(_plain_fraction, text)
    text = _OPTION_WORD.sub("", _bare(text))
    text = _ASSIGNMENT.sub("", " ".join(text.split()))
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def is_correct(response: str, gold: VisualSample | str, choices: Sequence[str] | None = None) -> bool:
    r"""Whether the answer that `response` states equals `gold`: as text, as a number, or as the same option.

    `gold` is a sample (its answer and its choices are used) or the answer itself, which may sit in `\boxed{}` or an
    `<answer>` tag. With choices, a letter and the option's text mean the same. Numbers are equal within 1e-6
    relative; thousands commas, %, degrees and common units are understood (50% equals 50 and 0.5; 5 cm equals 5, not
    5 km). No answer found is wrong. Raises ValueError where the sample holds no answer to compare with.
    """
    if isinstance(gold, VisualSample):
        if gold.answer is None:
            raise ValueError(f"sample {gold.id!r} has no answer, so responses to it cannot be scored")
        gold, choices = gold.answer, choices or gold.choices
    gold = _last_box(gold) or _last_tag(gold) or gold
    answer = extract_answer(response, choices)
    if answer is None:
        return False
    if choices and (right := choice_index(gold, choices)) is not None:
        return choice_index(answer, choices) == right
    return _same(answer, gold)


def choice_index(answer: str, choices: Sequence[str]) -> int | None:
    """Which option an answer names, by letter ("B", "(b)"), by text, or by both if they agree; None if unclear."""
    bare = _OPTION_WORD.sub("", _bare(_unwrap(answer)))
    by_text = {index for index, choice in enumerate(choices) if _same(bare, choice)}
    letter = _LETTER.fullmatch(bare) or re.fullmatch(r"\(([a-z])\)", bare)
    by_letter = {ord(letter[1].upper()) - ord("A")} & set(range(len(choices))) if letter else set()
    if both := _LETTER_AND_TEXT.fullmatch(bare):
        index = ord(both[1]) - ord("A")
        by_text |= {index} if index < len(choices) and _same(both[2], choices[index]) else set()
    named = by_letter | by_text
    return named.pop() if len(named) == 1 else None


def _last_box(text: str) -> str | None:
    open_braces: list[int | None] = []
    found = None
    for match in _BOX.finditer(text):
        if match[0].endswith("{") and match[0] != "\\{":
            open_braces.append(match.end() if match[0] != "{" else None)
        elif match[0] == "}" and open_braces and (start := open_braces.pop()) is not None:
            found = text[start : match.start()]
    return found


def _last_tag(text: str) -> str | None:
    found, start = None, None
    for match in _TAG.finditer(text):
        if not match[1]:
            start = match.end()
        elif start is not None:
            found, start = text[start : match.start()], None
    return found


def _after_cue(text: str) -> str | None:
    ends = [match.end() for match in _CUE.finditer(text)]
    if not ends:
        return None
    line = text[ends[-1] :].lstrip("*_ \t\r\n").partition("\n")[0]
    end = _SENTENCE_END.search(line)
    return _bare(line[: end.start()] if end else line)


def _bare(text: str) -> str:
    return text.strip().strip("*_`\"'$ \t\r\n").rstrip(".,;:").strip("*_`\"'$ \t\r\n")


def _unwrap(answer: str) -> str:
    for _ in range(3):
        answer = _WRAPPER.sub(r"\1", answer)
    return answer


def _plain_fraction(match: re.Match[str]) -> str:
    above, below = (match[1] or match[3] or "").strip(), (match[2] or match[4] or "").strip()
    plain = above.lstrip("-").isalnum() and below.isalnum()
    # The space keeps 2\frac{1}{2} from reading as 21/2; it goes away again where no digit stands before it.
    return f" {above}/{below}" if plain else f" ({above})/({below})"


def _number(text: str) -> tuple[Fraction, str, bool] | None:
    """(value, unit, percent) of a normalised text that is one number, fraction or mixed number."""
    unit = _UNIT.search(text[-MAX_NUMBER_LENGTH:])
    digits = text[: len(text) - len(unit[0])] if unit else text
    match = _NUMBER.fullmatch(digits) if len(digits) <= MAX_NUMBER_LENGTH else None
    if match is None or (match[2] and not match[4]):
        return None
    above, below = Fraction(match[3].replace(",", "")), Fraction((match[4] or "1").replace(",", ""))
    if not below:
        return None
    value = (int(match[2] or 0) + above / below) * (-1 if match[1] == "-" else 1)
    named = re.sub(r"[{}^.]", "", unit[0]).translate({0xB2: "2", 0xB3: "3"}) if unit else ""
    return value, named, bool(match[5])


def _same(answer: str, gold: str) -> bool:
    answer, gold = normalise(answer), normalise(gold)
    if answer == gold:
        return bool(gold)
    one, other = _number(answer), _number(gold)
    if one is None or other is None or (one[1] and other[1] and one[1] != other[1]):
        return False
    scales = [Fraction(1)]
    if one[2] != other[2]:
        scales.append(Fraction(1, 100) if one[2] else Fraction(100))
    return any(
        abs(one[0] * scale - other[0]) <= RELATIVE_TOLERANCE * max(abs(one[0] * scale), abs(other[0]))
        for scale in scales
    )
