"""Spellings under which texts that say the same are equal: undressed, as words, as a formula."""

from __future__ import annotations

import re
from functools import lru_cache

from eval.scoring.text import with_clock
from reopold_vl.answers import normalise

_DRESS = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mbox|bf|rm|boxed|operatorname)\b\s*"
    r"|\\[()\[\],;! ]|[$*_`]"
)
_ENDING = re.compile(r"(?:(?<=ss)es|(?<=[cs]h)es|(?<=[a-z]{3})(?<!s)(?:es|s|e))\b")
_FILLER = re.compile(r"\b(?:the|an|a|of|is|are|it|its)\b")


def undressed(text: str) -> str:
    """`text` without LaTeX text commands, math signs and emphasis."""
    return _DRESS.sub(" ", text).strip()


@lru_cache(maxsize=8192)
def key_of(text: str) -> str:
    """Words for comparison: normalised, lower case, without plural endings, articles and punctuation at their edges."""
    text = with_clock(undressed(text)[:2000]).replace("\u00b0", "")
    if re.fullmatch(r"[\W\d_]*", text) or "\\" in text:
        return normalise(text)
    words = (word.strip(".,;:!?\"'()[]{}") for word in text.lower().replace("-", " ").split())
    return _FILLER.sub(" ", _ENDING.sub("", " ".join(words))).replace("  ", " ").strip() or " ".join(
        text.lower().split()
    )


def tight(text: str) -> str:
    """A formula without spaces, braces and dress, as it stands inside a sentence treated alike."""
    return re.sub(r"[{}\s]", "", normalise(with_clock(text).replace("\\sqrt", "\u221a")))


def stem(word: str) -> str:
    """A word without its inflexion: "flipped" and "flip" become the same."""
    stem = re.sub(r"(?<=[a-z]{3})(?:ing|ed)$", "", word)
    return stem[:-1] if stem != word and len(stem) > 3 and stem[-1] == stem[-2] else stem
