"""AI2D: 3,088 multiple-choice questions (test) on diagrams from grade school science.

Source: https://huggingface.co/datasets/lmms-lab/ai2d. Paper: Kembhavi et al. 2016, arXiv:1603.07396. Licence: CC BY-SA
4.0 (the data set's page at AI2).

Traps: gold is the option's number from 0 as a text ("0" is A). Options may be letters, those of labels in the diagram,
in any order: an answer "A" means the first option, as the prompt asks, not the option "A". The diagrams' labels are
drawn as letters in some copies ("masked") and as words in others, and the two are not comparable: this is the copy
without masks. There is no official rule for generated text; `official` is the usual one, a bare letter or a response
that begins with "B.".
"""

from __future__ import annotations

import re

from eval.benches import common, vqa
from eval.benchmark import Benchmark, Row, Source
from eval.types import Problem, Verdict


def read(row: Row) -> Problem:
    """One row of the data set."""
    question, options = common.required(row, "question"), common.texts(row, "options")
    images = common.images(row, "image")
    return Problem(
        id=common.text(row, "id", "index") or vqa.content_id(question, images, *options),
        question=question,
        answer=vqa.letter_of_index(common.required(row, "answer"), len(options)),
        kind="choice",
        choices=options,
        images=images,
    )


def prompt_query(problem: Problem) -> str:
    """Question, options behind letters, and the request for the bare letter that published results use."""
    return f"{problem.question}\n{common.lettered(problem.choices)}\n{vqa.DIRECT_LETTER}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """The letter with which the response begins ("B. ..."), or which it is, upper or lower case."""
    first = re.match(r"\s*([A-Z])\.", response)
    bare = re.fullmatch(r"\W{0,4}([A-Za-z])\W{0,4}", response.strip())
    found = first or bare
    return vqa.letter_verdict(problem, found[1].upper() if found else None, "first letter" if first else "bare letter")


BENCH = Benchmark(
    name="ai2d",
    title="AI2D",
    licence="CC BY-SA 4.0",
    citation="Kembhavi et al. 2016, arXiv:1603.07396",
    sources=(Source("lmms-lab-encoder/ai2d"), Source("lmms-lab/ai2d")),
    splits=("test",),
    columns=(("question",), ("options",), ("answer",), ("image",)),
    read=read,
    prompts={"query": prompt_query, "cot": common.prompt_cot, "think": common.prompt_think},
    graders={"strict": vqa.grade_letter, "official": grade_official},
    max_new_tokens=512,
)
