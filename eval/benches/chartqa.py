"""ChartQA: 2,500 questions (test) on charts from the web, half written by people ("human"), half made ("augmented").

Source: https://huggingface.co/datasets/lmms-lab/ChartQA, https://huggingface.co/datasets/HuggingFaceM4/ChartQA.
Paper: Masry et al. 2022, arXiv:2203.10244. Licence: GPL-3.0 (repository).

`official` is the relaxed accuracy in its usual form: the whole response must be the answer; where both it and gold are
numbers ("12%" is 0.12) they may differ by 5 % of gold, else they must be equal but for upper and lower case. So years
pass when 100 off, "12%" is not 12, and nothing but a bare answer can be right.
`strict` looks for the answer that the response states and allows the same 5 %, since values are read off a picture,
with two differences: a gold year (1900 to 2099) must be met exactly, and "12%", 12 and 0.12 may stand for each other
where gold or answer has the sign. Gold 0 must be met exactly by both.

Traps: in the copy of HuggingFaceM4 the question is `query`, the answer a list of one, `label`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from eval.benches import common, vqa
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import strict
from eval.types import Graded, Problem, Verdict

TOLERANCE = 0.05
KINDS = {"human_test": "human", "augmented_test": "augmented", "0": "human", "1": "augmented"}
_FIGURE = re.compile(
    r"[-+]?[$\u20ac\u00a3]?\s?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})\s?(%?)"
)


def read(row: Row) -> Problem:
    """One row of either copy of the data set."""
    question = common.required(row, "question", "query")
    answers = common.texts(row, "label") if row.get("answer") is None else (common.required(row, "answer"),)
    answer = ", ".join(answers).strip()
    images = common.images(row, "image")
    source = common.text(row, "type", "human_or_machine")
    return Problem(
        id=common.text(row, "id", "index") or vqa.content_id(question, images, answer),
        question=question,
        answer=answer or None,
        kind=vqa.infer_kind(answer),
        tags=common.tags(source=KINDS.get(source, source)),
        images=images,
    )


def prompt_query(problem: Problem) -> str:
    """The question, and the request for a bare answer that published results use."""
    return f"{problem.question}\n{vqa.DIRECT_WORD}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """Relaxed accuracy over the whole response."""
    text, gold = response.strip(), problem.answer or ""
    if not text:
        return Verdict(None, "none", False, "unparsed")
    number, wanted = _float(text), _float(gold)
    if number is not None and wanted:
        return Verdict(text, "relaxed number", abs(number - wanted) / abs(wanted) <= TOLERANCE)
    return Verdict(text, "text", text.lower() == gold.lower())


def _float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def grade_strict(problem: Problem, response: str) -> Verdict:
    """As eval.scoring.strict, but numbers other than years may differ by 5 % of gold."""
    verdict = strict.grade(problem, response)
    if verdict.correct or verdict.extraction is None or verdict.status != "answered":
        return verdict
    near = _near(verdict.extraction, problem.answer or "")
    return replace(verdict, correct=True, rule=f"{verdict.rule}, within 5 %") if near else verdict


def _near(answer: str, gold: str) -> bool:
    one, other = _figure(answer), _figure(gold)
    if one is None or other is None or re.fullmatch(r"(?:19|20)\d\d", gold.strip()):
        return False
    (value, percent), (wanted, wanted_percent) = one, other
    scales = [1.0] if percent == wanted_percent else [1.0, 0.01 if percent else 100.0]
    return any(abs(value * scale - wanted) <= TOLERANCE * abs(wanted) for scale in scales)


def _figure(text: str) -> tuple[float, bool] | None:
    """The number of a short text that has exactly one, and whether a percent sign follows it."""
    found = list(_FIGURE.finditer(text)) if len(text) <= 80 else []
    if len(found) != 1:
        return None
    value = float(found[0][1].replace(",", ""))
    return (-value if found[0][0].startswith("-") else value), bool(found[0][2])


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """Relaxed accuracy on the human and the augmented questions, and the average of the two where there are both."""
    groups = common.grouped(common.scored(graded), lambda problem: (problem.tags.get("source") or ("",))[0])
    figures = {name: common.share(groups[name]) for name in ("human", "augmented") if name in groups}
    return {**figures, "average": sum(figures.values()) / 2} if len(figures) == 2 else figures


BENCH = Benchmark(
    name="chartqa",
    title="ChartQA",
    licence="GPL-3.0 (repository)",
    citation="Masry et al. 2022, arXiv:2203.10244",
    sources=(Source("lmms-lab-encoder/ChartQA"), Source("lmms-lab/ChartQA"), Source("HuggingFaceM4/ChartQA")),
    splits=("test",),
    columns=(("question", "query"), ("answer", "label"), ("image",), ("type", "human_or_machine")),
    read=read,
    prompts={"query": prompt_query, "cot": common.prompt_cot, "think": common.prompt_think},
    graders={"strict": grade_strict, "official": grade_official},
    metrics=metrics,
    headline="average",
    max_new_tokens=512,
)
