"""DynaMath: 501 seed questions drawn in 10 variants each, 5,010 rows: is a right answer right again with other numbers?

Source: https://huggingface.co/datasets/DynaMath/DynaMath_Sample (a split for each variant; the default, `all`, reads
the ten of them), https://github.com/DynaMath/DynaMath (official rules). Paper: Zou et al. 2024, arXiv:2411.00836.
Licence: the repository's badge says MIT.

`worst_case` is the share of seed questions right in all 10 variants, `average` the mean over the same questions,
`robustness` their ratio (the paper's reasoning robustness), `consistency` the share of seed questions whose variants
are all right or all wrong. Only seed questions with all 10 variants count in these four.

Traps: `id` is the seed's, the same in every variant. The official rule for texts is that gold occurs in the answer
(one harness has it the wrong way round, so that an empty answer is right there).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from eval.benches import common
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import strict
from eval.types import AnswerKind, Graded, Problem, Verdict

OPTION = r"\(([A-Z])\)"
VARIANTS = 10
TOLERANCE = 0.001

GUIDE = """
## Answer Instruction Please provide an answer to the question outlined above. Your response should adhere \
to the following JSON format, which includes two keys: 'solution' and 'short answer'. The 'solution' key can contain \
detailed steps needed to solve the question, and the 'short answer' key should provide a concise response. \
If the problem is a multiple choice problem, just provide the corresponing choice option, such as 'A', 'B', 'C', or \
'D'. If the answer is a numerical value, format it as a three-digit floating-point number.

Example of expected JSON response format:

"""
EXAMPLE = {"solution": "[Detailed step-by-step explanation]", "short answer": "[Concise Answer]"}


def read(row: Row) -> Problem:
    """One variant of a seed question; which one, its column `variant` or the name of its split says."""
    seed, question = common.required(row, "id"), common.required(row, "question")
    variant = common.text(row, "variant") or re.sub(r"\D", "", common.text(row, "_split"))
    answer, answer_type = common.text(row, "ground_truth", "answer") or None, common.text(row, "answer_type")
    kind = _kind(answer or "", answer_type)
    return Problem(
        id=f"{seed}-{variant or common.required(row, 'question_id', '_row')}",
        question=question,
        answer=answer,
        kind=kind,
        choices=common.inline_options(question, OPTION) if kind == "choice" else (),
        precision=3 if kind == "float" else None,
        tags=common.tags(
            subject=common.text(row, "subject"),
            level=common.text(row, "knowledge_level", "level"),
            answer_type=answer_type,
        ),
        extra={**common.extra(row, "answer_type", "question_id"), "seed": seed, "variant": variant},
        images=common.images(row, "decoded_image", "image"),
    )


def _kind(answer: str, answer_type: str) -> AnswerKind:
    if answer_type == "multiple choice":
        return "choice"
    return "float" if answer_type == "float" else common.free_kind(answer)


def prompt_official(problem: Problem) -> str:
    """The prompt of the official runs, which asks for a JSON object with a solution and a short answer."""
    asked = "Please answer in a floating-point number." if problem.kind == "float" else ""
    return f"## Question\n{problem.question}{asked}{GUIDE}{json.dumps(EXAMPLE, indent=4)}"


def with_decimals(prompt: Callable[[Problem], str]) -> Callable[[Problem], str]:
    """A variant of the prompt that asks for the three decimals to which numbers are compared."""

    def worded(problem: Problem) -> str:
        asked = " Give the answer as a number with three decimals." if problem.kind == "float" else ""
        return prompt(replace(problem, question=problem.question.rstrip() + asked))

    return worded


def grade_official(problem: Problem, response: str) -> Verdict:
    """The short answer of the JSON object (or else the last line but for its last character), by type.

    Numbers are right within 0.001 (of "2.5 cm" the first word counts, "2π" is understood), letters where gold is
    among the first three characters, texts where gold occurs in them.
    """
    answer, gold = _short_answer(response), problem.answer or ""
    if problem.kind == "float":
        value, wanted = _float(answer), _float(gold)
        right = value is not None and wanted is not None and abs(value - wanted) <= TOLERANCE
        return Verdict(answer or None, "number", right, "unparsed" if value is None else "answered")
    right = gold in (answer[:3] if problem.kind == "choice" else answer) and bool(gold)
    return Verdict(answer or None, "short answer", right, "answered" if answer else "unparsed")


def _short_answer(response: str) -> str:
    start, end = response.find("{"), response.rfind("}")
    try:
        # Backslashes go, as LaTeX in it would be no JSON; so do line breaks' own, which become the letter n.
        found = json.loads(response[start : end + 1].replace("\\", ""), strict=False) if 0 <= start < end else None
    except (ValueError, RecursionError):
        found = None
    return str(found.get("short answer", "")) if isinstance(found, dict) else response.split("\n")[-1][:-1]


def _float(text: str) -> float | None:
    word = text.split(" ")[0]
    try:
        value = float(word.split("π")[0]) * math.pi if "π" in word else float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """`worst_case`, `average`, `robustness` and `consistency` over the seed questions with all 10 variants."""
    groups = common.grouped(common.scored(graded), lambda problem: str(problem.extra["seed"]))
    seeds = [
        [item.correct for item in group]
        for group in groups.values()
        if len({item.response.problem.id for item in group}) == VARIANTS
    ]
    if not seeds:
        return {}
    average = sum(sum(seed) / VARIANTS for seed in seeds) / len(seeds)
    worst = sum(map(all, seeds)) / len(seeds)
    same = sum(all(seed) or not any(seed) for seed in seeds) / len(seeds)
    robustness = {"robustness": worst / average} if average else {}
    return {"worst_case": worst, "average": average, **robustness, "consistency": same, "seeds": float(len(seeds))}


BENCH = Benchmark(
    name="dynamath",
    title="DynaMath",
    licence="MIT (by the repository's badge)",
    citation="Zou et al. 2024, arXiv:2411.00836",
    sources=(Source("DynaMath/DynaMath_Sample"), Source("kcz358/DynaMath")),
    splits=("all", *(f"sample_variant{number}" for number in range(1, VARIANTS + 1)), "test"),
    columns=(("id",), ("question",), ("decoded_image", "image"), ("ground_truth", "answer")),
    read=read,
    prompts={
        "official": prompt_official,
        "cot": with_decimals(common.prompt_cot),
        "direct": with_decimals(common.prompt_direct),
        "think": with_decimals(common.prompt_think),
    },
    graders={"strict": strict.grade, "official": grade_official},
    metrics=metrics,
    headline="worst_case",
)
