"""Your own rows: a .parquet, .jsonl or .json file, or a directory of them, given by --data-path.

Columns, with the names that training data may have as well: an image (`image`, `images`, `decoded_image`: a path
relative to the file, encoded bytes or a data URI; or a list), `question` (or `problem`, `query`, `prompt`), `answer`
(or `solution`, `ground_truth`), and optionally `choices` (or `options`), `id`, `source` (or `type`; accuracy is broken
down by it), `unit`, `precision` (decimals), `kind`. Licence: that of your data.

What an answer is compared as follows from gold, row by row: with choices an option, by letter or text; yes or no; a
number; a formula; words. A `kind` column overrides that. Gold may sit in \\boxed{} or in an <answer> tag. There is no
official rule for your rows, so `official` is MathVista's, which takes the nearest option and compares words verbatim.
"""

from __future__ import annotations

from typing import get_args

from eval.benches import common, vqa
from eval.benchmark import Benchmark, BenchmarkError, Row
from eval.scoring import strict
from eval.types import AnswerKind, Problem
from reopold_vl.answers import choice_index, extract_answer
from reopold_vl.types import IMAGE_MARKER

IMAGE = ("decoded_image", "images", "image")
QUESTION = ("question", "problem", "query", "prompt")
ANSWER = ("answer", "solution", "ground_truth")
CHOICES = ("choices", "options")
KINDS: dict[str, AnswerKind] = {kind: kind for kind in get_args(AnswerKind)}
ENDINGS = {
    "choice": 'End with "Answer: " and the letter of the right option.',
    "choices": 'End with "Answer: " and the letters of all right options.',
    "yes_no": 'End with "Answer: yes" or "Answer: no".',
    "integer": 'End with "Answer: " and a whole number.',
    "list": 'End with "Answer: " and a list of numbers in square brackets.',
}
ENDING = 'End with "Answer: " and the final answer.'


def read(row: Row) -> Problem:
    """One row of your own. Raises BenchmarkError for one that cannot be asked or scored."""
    question = common.required(row, *QUESTION)
    choices = next(filter(None, (vqa.literal_list(row, name) for name in CHOICES)), ())
    images = common.images(row, *IMAGE)
    markers = question.count(IMAGE_MARKER)
    if images and markers not in (0, len(images)):
        raise BenchmarkError(f"{markers} {IMAGE_MARKER} markers for {len(images)} images")
    answer = _gold(row)
    kind = _kind(row, answer, choices)
    if kind == "choice" and answer and choices and choice_index(answer, choices) is None:
        raise BenchmarkError(f"answer {answer!r:.60} names none or several of the options {list(choices)!r:.120}")
    return Problem(
        id=common.text(row, "id") or vqa.content_id(question, images, *choices, answer),
        question=question,
        answer=answer or None,
        kind=kind,
        choices=choices,
        unit=common.text(row, "unit"),
        precision=common.whole(row.get("precision")),
        tags=common.tags(source=common.text(row, "source", "type")),
        images=images,
    )


def _gold(row: Row) -> str:
    """Gold as a text, out of its box or tag; true and false become yes and no."""
    for name in ANSWER:
        held = row.get(name)
        if isinstance(held, bool):
            return "yes" if held else "no"
        if isinstance(held, list) and len(held) == 1:
            held = held[0]
        if answer := common.text({name: held}, name):
            dressed = "\\boxed" in answer or "<answer>" in answer
            return (extract_answer(answer) if dressed else None) or answer.strip()
    return ""


def _kind(row: Row, answer: str, choices: tuple[str, ...]) -> AnswerKind:
    named = common.text(row, "kind")
    if named and named not in KINDS:
        raise BenchmarkError(f"kind {named!r:.40} must be one of {', '.join(KINDS)}")
    return KINDS[named] if named else vqa.infer_kind(answer, choices)


def prompt_query(problem: Problem) -> str:
    """The question, its options where it does not spell them out, and how to end the answer."""
    return f"{common.prompt_with_options(problem)}\n{ENDINGS.get(problem.kind, ENDING)}"


def prompt_plain(problem: Problem) -> str:
    """The question as it is."""
    return problem.question


BENCH = Benchmark(
    name="custom",
    title="Your own rows",
    licence="that of your data",
    citation="none: the data is yours",
    sources=(),
    splits=("test",),
    columns=(IMAGE, QUESTION, ANSWER),
    read=read,
    prompts={
        "query": prompt_query,
        "plain": prompt_plain,
        "cot": common.prompt_cot,
        "direct": common.prompt_direct,
        "think": common.prompt_think,
    },
    graders={"strict": strict.grade, "official": vqa.grade_mathvista_style},
)
