"""Yes or no said in prose: "Navy Blue is not the maximum" answers "Is Navy Blue the maximum?" with no."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.scoring.refusal import is_refusal

_YES_NO = "(yes|no|true|false|correct|incorrect|wrong)"
_WORD = re.compile(
    r"^\W*(?:\(?[A-J]\)?[.:)]\s*)?(?:(?:so|thus|therefore|hence|well|okay|ok)[, ]+)?(?:the answer is\W*)?"
    rf"{_YES_NO}\b(?!\s+(?:\w+ ){{0,2}}(?:is|are|was|were|has|have|other)\b)",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:statement|claim|assertion|it|this|that|answer)(?: \S+){0,16}? (?:is|would be) (?:also |therefore |thus )?"
    r"(?P<no>not |in)?(true|correct|right|false|wrong)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|no|none|never|neither|nor|cannot|without|nobody|nothing)\b|n't\b", re.IGNORECASE)
_DOUBLE = re.compile(r"\bnot only\b|\bno doubt\b|\bwhether or not\b|\bif not\b", re.IGNORECASE)
_MORE = re.compile(
    r"\b(?:more|greater|larger|bigger|higher|taller|longer|exceeds?|above|over|older|heavier|brighter|lighter|faster"
    r"|maximum|highest|largest|most)\b",
    re.IGNORECASE,
)
_LESS = re.compile(
    r"\b(?:less|fewer|smaller|lower|shorter|below|under|younger|darker|slower|minimum|lowest|smallest|least)\b",
    re.IGNORECASE,
)
_SAME = re.compile(r"\b(?:equal|same|identical)\b", re.IGNORECASE)
_CONCLUDING = re.compile(
    r"\b(?:therefore|thus|hence|so|in conclusion|consequently|overall|this means|which means)\b|^(?:所以|因此)",
    re.IGNORECASE,
)
_SO = re.compile(r"[,;]\s+(?:and )?(?:so|therefore|thus|hence)\b", re.IGNORECASE)
_QUESTION = re.compile(
    r"(?:^|[.!?\n,'\"]\s*)((?:is|are|was|were|does|do|did|has|have|had|can|could|will|would|should)\b[^?\n]*)", re.I
)
_CONTENT = re.compile(r"[a-z0-9]{3,}")
_COMMON = frozenset(
    [
        *("the", "and", "are", "was", "were", "does", "did", "has", "have", "had", "can", "will", "would", "there"),
        *("than", "that", "this", "for", "from", "with", "more", "less", "fewer", "number", "greater"),
    ]
)


def is_polar(question: str) -> bool:
    """Whether the question asks for yes or no."""
    return bool(_QUESTION.search(question))


def stated(sentence: str) -> bool | None:
    """True or False where a sentence opens with yes or no, or calls the statement true or false; else None."""
    if word := _WORD.match(sentence) or _WORD.match(_SO.split(sentence)[-1]):
        return word[1].lower() in ("yes", "true", "correct")
    if said := _STATED.search(sentence):
        return (said[2].lower() in ("true", "correct", "right")) != bool(said["no"])
    return None


def in_prose(question: str, parts: Sequence[str]) -> bool | None:
    """What the sentence that answers a yes/no question asserts: its negations and comparatives against the question's.

    The answering sentence is the concluding one that shares most words with the question, else the first such one.
    """
    asked = [match[1] for match in _QUESTION.finditer(question)]
    target = asked[-1] if asked else question
    wanted = set(_CONTENT.findall(target.lower())) - _COMMON
    if not wanted:
        return None
    best, best_score = None, 0.0
    for place, sentence in enumerate(parts):
        if is_refusal(sentence) and not _NEGATION.search(target):
            continue
        shared = len(wanted & set(_CONTENT.findall(sentence.lower()))) / len(wanted)
        bonus = 0.3 if _CONCLUDING.search(sentence) else 0.15 if place == 0 else 0.0
        if shared >= 0.45 and shared + bonus > best_score:
            best, best_score = sentence, shared + bonus
    if not best:
        return None
    clause = _SO.split(best)[-1]
    return _asserts(target, clause if wanted & set(_CONTENT.findall(clause.lower())) else best)


def _asserts(target: str, sentence: str) -> bool:
    negative = len(_NEGATION.findall(_DOUBLE.sub("", sentence))) % 2 == 1
    negative ^= len(_NEGATION.findall(target)) % 2 == 1
    for one, other in ((_MORE, _LESS), (_LESS, _MORE)):
        if one.search(target) and not other.search(target):
            if other.search(sentence) and not one.search(sentence):
                return negative if _strict_opposite(target) else False
            if _SAME.search(sentence) and not one.search(sentence):
                return False
    if _SAME.search(target) and not _SAME.search(sentence) and (_MORE.search(sentence) or _LESS.search(sentence)):
        return False
    return not negative


def _strict_opposite(target: str) -> bool:
    """ "Not less" leaves equality open, but people who say it mean "more"."""
    return bool(re.search(r"\bthan\b", target))
