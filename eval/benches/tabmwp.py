"""TabMWP: math word problems over tables, grades 1 to 8. The test split has 7,686, its public subset test1k 1,000.

Source: https://github.com/lupantech/PromptPG (data/tabmwp, official rules). Paper: Lu et al. 2023, arXiv:2209.14610.
Licence: CC BY-NC-SA 4.0.

Traps: there is no official data set on the Hub; the one named here is a copy by a user, the surest way is the official
repository's rows with an `image` column through --data-path. The table is an image and a text: the image is shown.
Gold numbers carry neither the unit nor the currency sign that answers have; fractions ("5/13") are gold answers of
type decimal_number. The repository's prompts are few-shot and text-only: "query" words the question as they do and adds
a last line, ours, that asks for the ending which the official rule reads.
"""

from __future__ import annotations

from eval.benches import common
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import official, strict
from eval.types import AnswerKind, Problem

ENDING = 'Solve the problem step by step and end with "The answer is" and the final answer.'


def read(row: Row) -> Problem:
    """One row of the data set, or of its published outputs (where `image` is a name)."""
    choices, answer = common.texts(row, "choices"), common.required(row, "answer")
    grade, answer_type = common.text(row, "grade"), common.text(row, "ans_type")
    number = common.whole(grade)
    return Problem(
        id=common.required(row, "pid", "id"),
        question=common.required(row, "question"),
        answer=answer,
        kind=_kind(answer, answer_type, choices),
        choices=choices,
        unit=common.text(row, "unit"),
        tags=common.tags(
            question_type=common.text(row, "ques_type"),
            answer_type=answer_type,
            grade=grade,
            grades="" if number is None else "1-6" if number <= 6 else "7-8",
        ),
        extra=common.extra(row, "table", "table_title", "ques_type", "ans_type", "grade"),
        images=common.images(row, "decoded_image", "image"),
    )


def _kind(answer: str, answer_type: str, choices: tuple[str, ...]) -> AnswerKind:
    if choices:
        return "choice"
    if answer_type == "integer_number":
        return "integer"
    return "number" if answer_type == "decimal_number" else "text"


def asked(problem: Problem) -> str:
    """The question in the repository's format: the unit behind it, the options in one line."""
    unit = f" (Unit: {problem.unit})" if problem.unit else ""
    options = common.lettered(problem.choices, "({letter}) {choice}").replace("\n", " ")
    return f"Question: {problem.question}{unit}" + (f"\nOptions: {options}" if options else "")


def prompt_query(problem: Problem) -> str:
    """Question, unit and options in the repository's format; step by step, ending in "The answer is ..."."""
    return f"{asked(problem)}\n{ENDING}"


def prompt_table(problem: Problem) -> str:
    """As "query" with the table written out before it, as the repository's text-only prompts have it."""
    title, table = problem.extra.get("table_title"), problem.extra.get("table")
    parts = ["Table:" + (f" {title}" if title else ""), str(table)] if table else []
    return "\n".join([*parts, prompt_query(problem)])


BENCH = Benchmark(
    name="tabmwp",
    title="TabMWP",
    licence="CC BY-NC-SA 4.0",
    citation="Lu et al. 2023, arXiv:2209.14610",
    sources=(Source("zyhang1998/tabmwp"),),
    splits=("test", "validation"),
    columns=(("pid", "id"), ("question",), ("decoded_image", "image"), ("answer",), ("ques_type",), ("ans_type",)),
    read=read,
    prompts={
        "query": prompt_query,
        "table": prompt_table,
        "cot": common.prompt_cot,
        "direct": common.prompt_direct,
        "think": common.prompt_think,
    },
    graders={"strict": strict.grade, "official": official.tabmwp},
)
