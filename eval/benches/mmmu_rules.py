"""The official rules of MMMU and MMMU-Pro: which option, which word or number a response gives.

From https://github.com/MMMU-Benchmark/MMMU (eval/eval_utils.py, mmmu-pro/evaluate.py), with its weaknesses: the rule
for open questions accepts gold anywhere inside a phrase, and where no option is found it picks one at random. Here
that pick is a hash of id and response, so it is the same in every run; its status is `unparsed` even when it is right.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from eval.benches import common
from eval.types import Problem, Verdict

MAX_PHRASE = 500
"""Numbers are looked for in a phrase's last characters; keeps the time linear in the response's length."""

_PHRASES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_PLAIN = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")


def choose(problem: Problem, response: str, *, answer_line: bool = False) -> Verdict:
    """The option that a response names: "(A)" before "A " before "A." before an option's text, the last one of several.

    With `answer_line` (MMMU-Pro) a single letter behind the last "Answer:" comes before all of them.
    """
    letters = common.letters(len(problem.choices))
    if answer_line and "Answer:" in response:
        line = response.rpartition("Answer:")[2]
        if len(named := [letter for letter in letters if letter in line]) == 1:
            return Verdict(named[0], "answer line", named[0] == problem.answer)
    text = response
    for mark in (",", ".", "!", "?", ";", ":", "'"):
        text = text.strip(mark)
    text = f" {text} "
    for rule, form in (("bracketed letter", "({})"), ("letter", "{} "), ("letter with dot", "{}.")):
        if named := [letter for letter in letters if form.format(letter) in text]:
            # Of several plain letters the official code asks where they stand alone, with a space on each side.
            place = form if form == "({})" else " {} "
            found = max(named, key=lambda letter: text.rfind(place.format(letter)))
            return Verdict(found, rule, found == problem.answer)
    if len(text.split()) > 5:
        options = zip(letters, problem.choices, strict=True)
        ends = {letter: text.lower().rfind(choice.lower()) for letter, choice in options}
        if named := [letter for letter in letters if ends[letter] >= 0]:
            found = max(named, key=lambda letter: ends[letter])
            return Verdict(found, "option text", found == problem.answer)
    found = _drawn(problem.id, response, letters)
    return Verdict(None, f"drawn at random: {found}", found == problem.answer, "unparsed")


def _drawn(problem_id: str, response: str, letters: Sequence[str]) -> str:
    digest = hashlib.blake2b(f"{problem_id}\0{response}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return letters[int.from_bytes(digest, "big") % len(letters)] if letters else ""


def answer_open(golds: Sequence[str], response: str) -> Verdict:
    """Right where a gold text occurs in a key phrase, or a gold number, rounded to 2 decimals, is among the numbers."""
    wanted = [value for gold in golds for value in _normal(gold)]
    phrases = _key_phrases(response)
    said = [value for phrase in [*phrases, *_numbers(phrases)] for value in _normal(phrase)]
    for value in said:
        inside = isinstance(value, str) and any(isinstance(gold, str) and gold in value for gold in wanted)
        if inside or (isinstance(value, float) and value in wanted):
            return Verdict(str(value).strip()[:200], "key phrase", True)
    if not any(phrases):
        return Verdict(None, "none", False, "unparsed")
    return Verdict(phrases[-1][:200], "key phrase", False)


def _key_phrases(response: str) -> list[str]:
    """For each line the shortest tail behind words such as "is"; in the last line also behind "="; else everything."""
    text = response.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines):
        marks = (*_PHRASES, "=") if number == len(lines) - 1 else _PHRASES
        tails = [line.rpartition(mark)[2].strip() for mark in marks if mark in line]
        shortest = min((tail for tail in tails if tail), key=len, default="")
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            found.append(shortest)
    return found or [text]


def _numbers(phrases: Sequence[str]) -> list[str]:
    ends = [phrase[-MAX_PHRASE:] for phrase in phrases]
    return [number for end in ends for form in (_WITH_COMMAS, _SCIENTIFIC, _PLAIN) for number in form.findall(end)]


def _normal(text: str) -> list[str | float]:
    """A number rounded to 2 decimals, or the text in lower case; a single character only with a space beside it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
