"""Responses as plain prose: special tokens, thoughts, Markdown and full-width characters taken away; sentences."""

from __future__ import annotations

import re

HEAD_LENGTH = 4_000
TAIL_LENGTH = 16_000
"""Longer responses keep their beginning and their end, where answers stand; every step below is linear in this."""

SENTENCE_LENGTH = 1_000
"""Longer sentences keep their end."""

SENTENCES = 160
"""Of more sentences only the first quarter of these and the last ones are looked at."""

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_CHARACTERS = str.maketrans(
    {
        **{chr(code): chr(plain) for code, plain in _FULL_WIDTH.items()},
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63", "-"),
        **dict.fromkeys("\u201c\u201d\u2033", '"'),
        **dict.fromkeys("\u2018\u2019\u2032", "'"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
        **dict.fromkeys("\r\u2028\u2029\u0085\v", "\n"),
        "\f": "\\f",  # "\frac" that went through a careless JSON writer
        "\u3002": ". ",
        "\u3001": ", ",
    }
)
_MOJIBAKE_DEGREE = re.compile("(?<=\\d)(?:\u63b3|\u00c2\u00b0|\u00ba|\u02da)")
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\n]{1,40}\|>|</?s>|<(?:eos|pad|bos|end_of_turn|unk|image)>|\[/?INST\]")
_WRITTEN_NEWLINE = re.compile(r"(?:\\n)+(?=[A-Z\d\s(*$\u2212-]|$)")
_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)
_MARKDOWN = re.compile(
    r"(?<![\w)])\*{1,3}|\*{1,3}(?![\w(])|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{2,3}(?!\w)|^#{1,6} +|^> +|`{1,3}|~~", re.MULTILINE
)
_SENTENCE = re.compile(
    r"(?<!\b[A-Z]\.)(?<!\bvs\.)(?<!\b[DM][rs]\.)(?<!\bMrs\.)(?<!\bSt\.)(?<=[.?!;])\)?(?:[\"']?)\s+|\n+|(?<=[\u3002\uff1b])"
)
_CLOCK = re.compile(r"(?<=\d)\s?([AaPp])\.?\s?[Mm]\b\.?")
_CHITCHAT = re.compile(
    r"\b(?:hope (?:this|that|it) (?:helps|answers|is)|let me know|anything else|any (?:other|further|more) questions"
    r"|do you have (?:any )?other|feel free|happy to help|is there anything|can i help|thank you|would you like)\b",
    re.IGNORECASE,
)


def any_of(*alternatives: str) -> str:
    """A regular expression that matches one of `alternatives`, tried in order."""
    return f"(?:{'|'.join(alternatives)})"


def clean(response: str) -> str:
    """`response` capped in length, in plain characters, without special tokens; Markdown and LaTeX are kept."""
    if len(response) > HEAD_LENGTH + TAIL_LENGTH:
        response = response[:HEAD_LENGTH] + "\n" + response[-TAIL_LENGTH:]
    text = response.translate(_CHARACTERS)
    text = _SPECIAL_TOKEN.sub(" ", _MOJIBAKE_DEGREE.sub("\u00b0", text))
    return _WRITTEN_NEWLINE.sub("\n", text).strip()


def spoken(text: str) -> tuple[str, bool]:
    """What a cleaned response says after its thoughts, and whether it was still thinking when it ended."""
    start = 0
    open_thought = False
    for tag in _THINK.finditer(text):
        open_thought = not tag[1]
        start = start if open_thought else tag.end()
    after = text[start:].strip()
    return (after, open_thought) if after else (text, True)


def answer_tag(text: str) -> str | None:
    """What stands in the last `<answer>` tag; a tag that was never closed reaches to the end."""
    opened = list(_ANSWER_OPEN.finditer(text))
    if not opened:
        return None
    inside = re.split(r"</answer>", text[opened[-1].end() :], maxsplit=1, flags=re.IGNORECASE)[0].strip()
    return inside or None


def tag_is_closed(text: str) -> bool:
    """Whether the last `<answer>` tag has its end tag."""
    low = text.lower()
    return low.rfind("</answer>") > low.rfind("<answer>")


def with_clock(text: str) -> str:
    """`text` with "7:15 P.M." written as "7:15 PM"."""
    return _CLOCK.sub(lambda match: f" {match[1].upper()}M", text)


def plain(text: str) -> str:
    """`text` without Markdown emphasis, headings and code ticks."""
    return _MARKDOWN.sub("", text)


def sentences(text: str) -> list[str]:
    """The sentences and lines of `text` in order, pleasantries ("I hope this helps!") left out."""
    parts = [part.strip()[-SENTENCE_LENGTH:] for part in _SENTENCE.split(text) if part and not part.isspace()]
    if len(parts) > SENTENCES:
        parts = parts[: SENTENCES // 4] + parts[-3 * SENTENCES // 4 :]
    return [part for part in parts if not _CHITCHAT.search(part)]


def is_repeating(text: str, times: int = 5) -> bool:
    """Whether the text ends in one passage of up to 200 characters said `times` times over: a stuck generation."""
    tail = text[-1_200:].rstrip()
    for period in range(4, min(200, len(tail) // times) + 1):
        block = tail[-period:]
        if tail.endswith(block * times) and len(set(block)) > 1:
            return True
    return False


def is_cut_off(text: str) -> bool:
    """Whether a long text stops in mid-sentence: it ran into a token limit."""
    return len(text) > 400 and bool(re.search(r"[a-zA-Z,(=+*/{-]\s*$", text))
