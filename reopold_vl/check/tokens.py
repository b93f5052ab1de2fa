"""Do both models mean the same by a token id, end an answer alike, and read the same text?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from reopold_vl.check.result import Result

APART = "--teacher.align text compares by spans of text instead"


def vocabulary(ours: Mapping[str, int], theirs: Mapping[str, int] | None, *, by_text: bool = False) -> Result:
    """The same tokens under the same ids (embedding matrices may be padded differently).

    `by_text`: the models are compared by spans of text, so that other tokenizers are information, not a failure.
    """
    name = "tokenizer"
    if theirs is None:
        return Result(name, "skip", "the teacher does not tell its vocabulary")
    if ours == theirs:
        return Result(name, "ok", f"{len(ours):,} tokens under the same ids")
    by_id = {index: token for token, index in ours.items()}
    others = {index: token for token, index in theirs.items()}
    first = min(index for index in {*by_id, *others} if by_id.get(index) != others.get(index))
    measured = (
        f"tokenizers differ: id {first} is {by_id.get(first)!r} for the student and {others.get(first)!r} "
        f"for the teacher ({len(ours):,} and {len(theirs):,} tokens)"
    )
    if by_text:
        return Result(name, "ok", f"{measured}; rewards are taken on spans of text")
    return Result(name, "fail", measured, f"take a teacher of the student's family; {APART}")


def end_tokens(
    ours: Sequence[int], theirs: Sequence[int] | None, *, named: Callable[[int], str], by_text: bool = False
) -> Result:
    """Both models end an answer with the same ids; `named` gives a student's token of an id."""
    name = "end tokens"
    mine = ", ".join(named(token) for token in ours)
    if theirs is None:
        return Result(name, "skip", f"{mine} for the student; the teacher does not tell its own")
    if set(ours) == set(theirs):
        return Result(name, "ok", f"{mine} for both")
    if by_text:
        return Result(name, "ok", f"{mine} for the student; the teacher's own end counts as its span")
    measured = f"end tokens differ: {mine} for the student and {', '.join(map(named, theirs))} for the teacher"
    return Result(name, "fail", measured, "make eos_token_id the same in both generation_config.json")


def turn_end(
    end_ids: Collection[int], following: Sequence[int], special_ids: Collection[int], named: Callable
) -> Result:
    """The token that the chat template writes after an answer is one that ends it.

    `following` are the ids of what the template renders behind an answer; the first special token of them counts,
    because templates may put white space before it.
    """
    name = "turn end"
    first = next((token for token in following if token in special_ids), None)
    if first is None:
        return Result(name, "skip", "the chat template ends a turn without a special token")
    if first in end_ids:
        return Result(name, "ok", f"the chat template ends a turn with {named(first)}, an end token")
    ends = ", ".join(named(token) for token in end_ids)
    measured = f"the chat template ends a turn with {named(first)}, which ends no answer (end tokens: {ends})"
    advice = f"add id {first} to eos_token_id in the student's generation_config.json, or answers run on to the limit"
    return Result(name, "fail", measured, advice)


def template(ours: Sequence[str], theirs: Sequence[str] | None, *, by_text: bool = False) -> Result:
    """Both chat templates render the same text of each sample."""
    name = "chat template"
    if theirs is None:
        return Result(name, "skip", "the teacher does not show what its chat template renders")
    for one, other in zip(ours, theirs, strict=True):
        if one == other:
            continue
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        if by_text:
            return Result(name, "ok", f"each model reads its own; they differ from character {at} on")
        measured = (
            f"chat templates differ at character {at}: {one[at : at + 40]!r} for the student and "
            f"{other[at : at + 40]!r} for the teacher"
        )
        return Result(name, "fail", measured, "copy one model's chat_template.jinja into the other's directory")
    return Result(name, "ok", f"the same text for both ({len(ours)} samples)")


def whole_text(text: str, parts: Sequence[str], *, whose: str) -> Result | None:
    """A failure if the rendered `text` lacks a part of the question; None if all is there."""
    missing = next((part for part in parts if part.strip() and part.strip() not in text), None)
    if missing is None:
        return None
    measured = f"the {whose}'s chat template leaves out the question: {missing.strip()[:40]!r} is not in {text[:60]!r}"
    advice = "give the model its own chat_template.jinja; content comes as a list of parts, text and image"
    return Result("chat template", "fail", measured, advice)
