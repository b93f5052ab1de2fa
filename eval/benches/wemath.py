"""We-Math: 525 problems of two or three steps with their steps as problems of their own, 1,740 rows of testmini.

Source: https://huggingface.co/datasets/We-Math/We-Math, https://github.com/We-Math/We-Math (official rules).
Paper: Qiao et al. 2024, arXiv:2407.01284. Licence: CC BY-NC 4.0 (not for commercial use).

The four-way figure looks at whole groups. Of a composed problem and its steps: insufficient knowledge (IK), a step
and the whole wrong; inadequate generalisation (IG), all steps right, the whole wrong; rote memorisation (RM), the
whole right though a step (strict) or every step (loose) is wrong; complete mastery (CM), the other right ones.
Score = (N - 0.5 IG - RM - IK) / N over the N complete groups. A run over fewer rows has few or none of those.

Traps: `ID` is the group's, shared by its steps; all options are one text, with ";" missing or without a blank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from eval.benches import common
from eval.benchmark import Benchmark, BenchmarkError, Row, Source
from eval.scoring import strict
from eval.types import Graded, Problem, Verdict

OPTION = r"(?:^|(?<=[;\s]))([A-I])\.\s*"
KEY = re.compile(r"([23])steps_(\d|multi)")

REQUEST = (
    "Now, we require you to solve a multiple-choice math question. "
    "Please briefly describe your thought process and provide the final answer(option)."
)
FORMAT = (
    "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
    "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
)


def read(row: Row) -> Problem:
    """One row: a step ("2steps_1") or a composed problem ("2steps_multi")."""
    group, key = common.required(row, "ID"), common.required(row, "key")
    if not (named := KEY.fullmatch(key)):
        raise BenchmarkError(f"key {key!r:.40} must be like 2steps_1 or 3steps_multi")
    composed = named[2] == "multi"
    concepts = common.text(row, "knowledge concept")
    return Problem(
        id=f"{group}/{named[2]}",
        question=common.required(row, "question"),
        answer=common.text(row, "answer").strip() or None,
        kind="choice",
        choices=common.inline_options(common.required(row, "option"), OPTION),
        tags=common.tags(
            steps=f"S{named[1]}" if composed else "S1",
            knowledge_concept=() if composed else [concept.strip() for concept in concepts.split(";")],
        ),
        extra=common.extra(row, "ID", "key", "option", "split", "knowledge concept", "question number"),
        images=common.images(row, "image_path", "image"),
    )


def prompt_official(problem: Problem) -> str:
    """The prompt of the paper: a brief thought process and the option in a template."""
    return f"{REQUEST}\n{_asked(problem)}\n{FORMAT}"


def prompt_direct(problem: Problem) -> str:
    """Question and options, the letter alone."""
    return f"{_asked(problem)}\nAnswer with the option's letter from the given choices directly."


def prompt_think(problem: Problem) -> str:
    """For models trained on the <think> </think> <answer> </answer> format."""
    return f"{_asked(problem)}\n{common.THINK_TAGS}"


def _asked(problem: Problem) -> str:
    return f"Question: {problem.question}\nOption: {problem.extra['option']}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """What follows the last "Answer", without `< > : .`: its first character, if it is one of A to H."""
    said = re.sub("[><:.]", "", response.rpartition("Answer")[2].strip()).strip()
    letter = said[:1] if said[:1] in tuple("ABCDEFGH") else None
    right = letter is not None and letter == (problem.answer or "").strip()
    return Verdict(letter, "after the last Answer", right, "answered" if letter else "unparsed")


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """Accuracy by steps (S1, S2, S3) and, over complete groups, the four-way figures, strict and loose.

    IK, IG, CM are shares of the groups; RM is, as published, the share of the composed problems solved right that
    are rote (RM / (RM + CM)), left out where none is.
    """
    items = common.scored(graded)
    figures = {
        name: common.share(group)
        for name, group in sorted(common.grouped(items, lambda problem: problem.tags["steps"][0]).items())
    }
    groups = list(_complete_groups(items))
    if not groups:
        return figures
    total = len(groups)
    unknown = sum(not whole and not all(steps) for steps, whole in groups)
    ungeneral = sum(not whole and all(steps) for steps, whole in groups)
    rote = {
        "strict": sum(whole and not all(steps) for steps, whole in groups),
        "loose": sum(whole and not any(steps) for steps, whole in groups),
    }
    right = sum(whole for _, whole in groups)
    figures |= {"IK": unknown / total, "IG": ungeneral / total, "groups": float(total)}
    for name, count in rote.items():
        figures[f"score_{name}"] = (total - 0.5 * ungeneral - count - unknown) / total
        figures[f"CM_{name}"] = (right - count) / total
        if right:
            figures[f"RM_{name}"] = count / right
    return figures


def _complete_groups(graded: Sequence[Graded]) -> list[tuple[list[bool], bool]]:
    """(which steps are right, whether the composed problem is) of the groups with all of their rows."""
    groups: dict[str, dict[str, bool]] = {}
    for item in graded:
        extra = item.response.problem.extra
        groups.setdefault(str(extra["ID"]), {})[str(extra["key"])] = item.correct
    found = []
    for members in groups.values():
        steps = next(iter(members))[0]
        wanted = [f"{steps}steps_{step}" for step in range(1, int(steps) + 1)]
        if set(members) == {*wanted, f"{steps}steps_multi"}:
            found.append(([members[key] for key in wanted], members[f"{steps}steps_multi"]))
    return found


BENCH = Benchmark(
    name="wemath",
    title="We-Math",
    licence="CC BY-NC 4.0",
    citation="Qiao et al. 2024, arXiv:2407.01284",
    sources=(Source("We-Math/We-Math"),),
    splits=("testmini",),
    columns=(("ID",), ("key",), ("question",), ("option",), ("image_path", "image"), ("answer",)),
    read=read,
    prompts={
        "official": prompt_official,
        "cot": lambda problem: f"{_asked(problem)}\n{common.STEP_BY_STEP}",
        "direct": prompt_direct,
        "think": prompt_think,
    },
    graders={"strict": strict.grade, "official": grade_official},
    metrics=metrics,
    headline="score_strict",
)
