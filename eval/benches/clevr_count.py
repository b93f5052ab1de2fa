"""CLEVR counting: how many objects of a rendered scene fit a description; the task of the first R1-style VLM recipes.

Source: https://huggingface.co/datasets/BUAADreamer/clevr_count_70k (train, test), built on CLEVR. Papers: Johnson et
al. 2017, arXiv:1612.06890 (CLEVR); the counting questions come from R1-V. Licence: CC BY 4.0 (CLEVR).

Traps: gold sits in a tag, "<answer> 3 </answer>", in the column `solution` or `answer`. Other sets of the same schema
(MMInstruction/Clevr_CoGenT_ValA and _ValB, leonardPKU/clevr_cogen_a_train) keep everything in a split called train:
pass them with --data-path, and mind which of them a model was trained on. Rows have no id: they are named by content.
`official` compares the text in the response's first answer tag, or the whole response, with gold, as R1-V's reward.
"""

from __future__ import annotations

import re

from eval.benches import common, vqa
from eval.benchmark import Benchmark, BenchmarkError, Row, Source
from eval.scoring import strict
from eval.types import Problem, Verdict
from reopold_vl.types import IMAGE_MARKER

TAGS = "Output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."


def read(row: Row) -> Problem:
    """One row of the data set."""
    question = common.required(row, "problem", "question").replace(IMAGE_MARKER, "").strip()
    gold = _tagged(common.required(row, "solution", "answer")).strip()
    if common.whole(gold) is None:
        raise BenchmarkError(f"the answer must be a whole number, not {gold!r:.40}")
    images = common.images(row, "image", "images")
    return Problem(
        id=common.text(row, "id") or vqa.content_id(question, images),
        question=question,
        answer=gold,
        kind="integer",
        tags=common.tags(count=gold),
        images=images,
    )


def _tagged(text: str) -> str:
    found = re.search(r"<answer>([^<]*)</answer>", text)
    return found[1] if found else text


def prompt_query(problem: Problem) -> str:
    """R1-V's wording: thoughts and the number in tags."""
    return f"{problem.question} {TAGS}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """The first answer tag's text, or else the whole response, equal to gold as a text or as a number."""
    found = _tagged(response).strip()
    same = found == problem.answer or (common.whole(found) is not None and common.whole(found) == _gold(problem))
    if not found or (found == response.strip() and common.whole(found) is None):
        return Verdict(None, "none", False, "unparsed")
    return Verdict(found, "tag" if found != response.strip() else "whole", same)


def _gold(problem: Problem) -> int | None:
    return common.whole(problem.answer)


BENCH = Benchmark(
    name="clevr_count",
    title="CLEVR counting",
    licence="CC BY 4.0",
    citation="Johnson et al. 2017, arXiv:1612.06890",
    sources=(Source("BUAADreamer/clevr_count_70k"),),
    splits=("test",),
    columns=(("problem", "question"), ("solution", "answer"), ("image", "images")),
    read=read,
    prompts={"query": prompt_query, "cot": common.prompt_cot, "direct": common.prompt_direct},
    graders={"strict": strict.grade, "official": grade_official},
)
