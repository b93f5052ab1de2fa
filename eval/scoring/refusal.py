"""Declining to answer, in the words models use for it."""

from __future__ import annotations

import re

from eval.scoring.text import any_of

_CANNOT = any_of(
    *(
        "can(?:no|')t",
        "could(?: not|n't)",
        "can ?not",
        "(?:am|are|is|'m|'re) (?:not able|unable)",
        "(?:not |im)possible",
        "unable",
    ),
    *("is difficult", "do(?:es)?(?: not|n't) (?:have|see|contain|provide)", "without", "insufficient", "not enough"),
)
_KNOW = any_of(
    *(
        "determin",
        "answer",
        "calculat",
        "count",
        "comput",
        "solve",
        "tell",
        "say",
        "know",
        "give",
        "provide",
        "identify",
        "find",
    ),
    *("select", "see", "view", "access", "process", "help", "information", "context", "image", "data"),
)
_MISSING = any_of(
    *(
        "provided",
        "given",
        "specified",
        "available",
        "clear",
        "enough",
        "sufficient",
        "determinable",
        "listed",
        "among",
    ),
)
_SOURCE = any_of("image", "picture", "figure", "diagram", "table", "graph", "chart", "information", "data", "context")
_OPTION = any_of("solution", "answer", "option", "choice")
# Each alternative is a way to say "this cannot be answered" or "there is no answer to give".
_REFUSAL = re.compile(
    any_of(
        rf"\b{_CANNOT}(?: \S+){{0,8}}? {_KNOW}\w*",
        r"\b(?:can ?not|can't|not) (?:be )?(?:determin|answer|calculat|comput|solv|infer|possibl)\w*",
        rf"\b(?:is|are|was|were) not {_MISSING}\b",
        r"\bnot (?:provided|determinable|enough information|applicable)\b",
        r"(?<!\w)n/a(?!\w)",
        r"\bnone of (?:the|these|them)(?: \S+){0,4}? "
        r"(?:match|correspond|is|are|seem|fit|correct|choices|options|answers)",
        r"\b(?:answer|option|choice|letter) is (?:\(?none\)?|inconclusive|unknown|undefined|not)\b",
        r"\(none\)|\\text\{\(?none",
        r"\b(?:need|require)s? (?:more|additional|further) (?:\S+ )?(?:information|context|details|data)",
        r"\b(?:need|have) (?:to (?:see|view|look at|have|know) )?(?:the|an?|this|your) (?:\w+ ){0,2}"
        rf"{_SOURCE} (?:to|in order|for|or|and)\b",
        r"\bplease provide\b|\bsorry\b|\bapologi[sz]e\b|\binsufficient (?:data|information)",
        rf"\b(?:no|missing) (?:\w+ ){{0,2}}{_SOURCE}s? (?:is |are |was |were )?{_MISSING}\b",
        rf"\bno (?:valid|correct|right) {_OPTION}",
        rf"\bno {_OPTION} (?:is |was )?(?:given|provided|available|matches|listed)",
        "无法(?:确定|回答|判断|计算|得出)|无解|信息不足|没有(?:正确)?(?:答案|选项)|(?:答案|选项)(?:是|为)?[: ]?无",
    ),
    re.IGNORECASE,
)

_PHRASES = (
    (re.compile(r"cannot be (?:determined|answered|calculated)", re.IGNORECASE), None),
    (re.compile(r"not (?:determinable|provided)", re.IGNORECASE), None),
    (re.compile(r"\bnone\b", re.IGNORECASE), "None"),
    (re.compile(r"can ?not determine(?! the (?:correct |right )?option)", re.IGNORECASE), "Cannot determine"),
)


def is_refusal(sentence: str) -> bool:
    """Whether a sentence says that no answer can be given."""
    return bool(_REFUSAL.search(sentence))


def refuses(parts: list[str]) -> bool:
    """Whether a response, as sentences, declines: it opens by declining or closes with it."""
    return any(map(is_refusal, parts[:1] + parts[-2:]))


def refusal_words(parts: list[str]) -> str:
    """A refusal in brief, as an extractor would copy it: the phrase it uses, else "N/A"."""
    for sentence in reversed(parts[-3:]):
        for pattern, name in _PHRASES:
            if found := pattern.search(sentence):
                return name or found[0].capitalize()
    return "N/A"
