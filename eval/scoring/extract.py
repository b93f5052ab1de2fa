"""Final answers found in responses: what a response commits itself to, by kind of problem. The last commitment wins."""

from __future__ import annotations

import re
from dataclasses import replace

from eval.scoring import cues, options, polarity, quantity
from eval.scoring.choice import chosen, find_choice
from eval.scoring.finding import NOTHING, WHOLE_LIMIT, Finding, declined
from eval.scoring.lists import find_list
from eval.scoring.numbers import parse_number
from eval.scoring.refusal import is_refusal
from eval.scoring.several import find_letters, one_line
from eval.scoring.text import answer_tag, clean, is_cut_off, plain, sentences, spoken, tag_is_closed
from eval.scoring.wording import undressed
from eval.types import Problem

# "The vertex is (3, 4)": words and a verb or colon, then something that is no word.
_SAYS = re.compile(
    r"[A-Za-z][^=:\n]{2,200}(?:\b(?:is|are|equals|becomes)(?: equal to)?|:)\s+(?=(?![A-Za-z]{2}).{1,60}$)"
)


def extract(problem: Problem, response: str) -> Finding:
    """The answer that `response` states to `problem`, or why there is none. Never raises, linear in the length."""
    text = clean(response)
    text, thinking = spoken(text)
    inside = answer_tag(text)
    if inside is None and thinking:  # cut off in its thoughts: only a box is a commitment
        boxed = cues.boxes(text)
        return _by_kind(problem, f"\\boxed{{{boxed[-1].text}}}") if boxed else NOTHING
    if inside is not None:
        found = _by_kind(problem, inside)
        if found.status != "unparsed":
            return replace(found, rule=f"tag, {found.rule}") if tag_is_closed(text) else found
    return _by_kind(problem, text)


def choices_of(problem: Problem) -> tuple[str, ...]:
    """The problem's options; for benchmarks that write them into the question, those found there."""
    return problem.choices or (
        options.listed_options(problem.question) if problem.kind in ("choice", "choices") else ()
    )


def _by_kind(problem: Problem, text: str) -> Finding:
    if not text:
        return Finding(None, "empty", "unparsed")
    if problem.kind == "choices":
        return _find_choices(text, choices_of(problem), problem.question)
    if problem.kind == "choice":
        return find_choice(text, choices_of(problem), problem.question)
    if problem.kind == "yes_no":
        return _find_yes_no(text, problem.question)
    if problem.kind in ("integer", "float", "number"):
        unit = f" (Unit: {problem.unit})" if problem.unit and problem.unit not in problem.question else ""
        return _find_number(text, problem.question + unit)
    if problem.kind == "list":
        return _find_list(text)
    return _find_expression(text, problem)


def _find_choices(text: str, choices: tuple[str, ...], question: str) -> Finding:
    """A set of options; a response that names none of them together is read as one for a single option."""
    if found := find_letters(text, len(choices)):
        return chosen(*found, choices)
    return find_choice(one_line(text, len(choices)), choices, question)


def _find_yes_no(text: str, question: str) -> Finding:
    parts = sentences(plain(text))
    statements = sorted(cues.boxes(text) + cues.cued(text), key=lambda each: each.start)
    stated = [(polarity.stated(undressed(statement.text)), statement.rule) for statement in statements[::-1]]
    if parts:
        stated += [(polarity.stated(parts[0]), "first words"), (polarity.stated(parts[-1]), "last line")]
    said, rule = next((each for each in stated if each[0] is not None), (None, "prose"))
    if said is None and (refused := declined(text, parts)):
        return refused
    if said is None:
        said = polarity.in_prose(question, parts)
    return NOTHING if said is None else Finding("yes" if said else "no", rule)


def _find_number(text: str, question: str) -> Finding:
    parts = sentences(plain(text))
    lines = [line.strip() for line in plain(text).split("\n") if line.strip()]
    statements = sorted(cues.boxes(text) + cues.cued(text), key=lambda each: each.start)
    short = len(text) < WHOLE_LIMIT and "\n" not in text and not statements
    if short and not quantity.none_counted(text, question) and (whole := quantity.only_number(plain(text), question)):
        return Finding(whole.text, "whole", number=whole.value)
    for statement in reversed(statements):
        if is_refusal(statement.text):
            break
        if found := quantity.in_statement(statement, question):
            return Finding(found.text, statement.rule, number=found.value)
    last = parse_number(lines[-1]) if lines and len(lines[-1]) < 40 else None
    if last is not None:
        return Finding(lines[-1], "last line", number=last)
    if refused := declined(text, parts):
        return refused
    bold = {number: each.text for each in cues.emphasised(text) if (number := parse_number(each.text)) is not None}
    if len(bold) == 1:
        number, words = bold.popitem()
        return Finding(words, "bold", number=number)
    found = quantity.in_prose(parts, question)
    if found and is_cut_off(text) and found.text not in parts[-1]:
        return Finding(None, "cut off", "unparsed")
    return Finding(found.text, "prose", number=found.value) if found else NOTHING


def _find_list(text: str) -> Finding:
    statements = sorted(cues.boxes(text) + cues.cued(text), key=lambda each: each.start)
    for statement in reversed(statements):
        if (listed := find_list(statement.text)) is not None:
            return Finding(listed, statement.rule)
    if (listed := find_list(plain(text))) is not None:
        return Finding(listed, "prose")
    return declined(text, sentences(plain(text))) or NOTHING


def _find_expression(text: str, problem: Problem) -> Finding:
    """A formula or words: the last box, else after the last cue, else a short response as a whole."""
    boxed = cues.boxes(text)
    cued = [each for each in cues.cued(text) if not is_refusal(each.text)]
    if boxed and (not cued or boxed[-1].start > cued[-1].start or "boxed" in cued[-1].text):
        return Finding(boxed[-1].text, "box")
    if cued:
        sentence = re.split(r"(?<=[^\s.])[.](?=\s|$)", cued[-1].text, maxsplit=1)[0]
        return Finding(sentence.strip(), "cue")
    if boxed:
        return Finding(boxed[-1].text, "box")
    parts = sentences(plain(text))
    if refused := declined(text, parts):
        return refused
    short = len(text) < WHOLE_LIMIT and "\n" not in text
    if problem.kind == "text":
        return Finding(plain(text).strip(" ."), "whole") if short else NOTHING
    stated = _SAYS.match(plain(parts[-1])) if parts else None
    if stated or short:
        rest = parts[-1][stated.end() :] if stated else text
        return Finding(plain(rest).strip(" ."), "prose" if stated else "whole")
    found = quantity.in_prose(parts, problem.question)
    return Finding(found.text, "prose", number=found.value) if found else NOTHING
