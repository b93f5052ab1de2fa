"""MathVista-style accuracy for users of `evaluate`: raw responses against gold answers, extraction included.

    from eval.metric import VisualReasoningAccuracy
    metric = VisualReasoningAccuracy()
    metric.compute(predictions=["The answer is (B)."], references=["42"], choices=[["41", "42"]])

`evaluate.load("eval/metric.py")` gives the same from a checkout, without network. Importing this module loads
`evaluate` and `datasets`, which takes seconds: nothing else in this package imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import reopold_vl.torchvision_shim  # noqa: F401  (before evaluate, which loads transformers' image code)

# isort: split
import datasets
import evaluate

from eval.benches import vqa
from eval.scoring import strict
from eval.types import AnswerKind, Problem, Scorer
from reopold_vl.report.stats import wilson_interval

DESCRIPTION = """\
Accuracy of free-form responses to visual questions, in the manner of MathVista: the final answer is extracted by rules
(cues, boxes, tags, option letters and texts, numbers with units) and compared with gold by the kind of answer. No model
judges. Responses without a recognisable answer and refusals are wrong, and counted.
"""
CITATION = """\
@inproceedings{lu2024mathvista,
  title = {MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts},
  author = {Lu, Pan and Bansal, Hritik and Xia, Tony and Liu, Jiacheng and Li, Chunyuan and Hajishirzi, Hannaneh and
    Cheng, Hao and Chang, Kai-Wei and Galley, Michel and Gao, Jianfeng},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}
"""
USAGE = """
Args:
    predictions: raw responses, a text each.
    references: gold answers, a text each; or {"answer", "choices", "kind"}, with [] and "" for what a row has not.
    choices: optional, the options of each row; [] for none. Gold is then an option's letter or text.
    kinds: optional, the kind of each gold answer, "" for what it looks like: choice, choices, integer, float, number,
        list, yes_no, expression or text.
    scorer: "strict" (default): an answer counts when it is stated. "official": MathVista's rule, which takes the
        option nearest to whatever was said.
Returns:
    accuracy, unparsed, refusals: shares of all rows, 0 to 1.
    total: the number of rows.
    interval: the accuracy's Wilson interval at 95 %, [low, high].
"""
KINDS: tuple[str, ...] = get_args(AnswerKind)
GRADERS = {"strict": strict.grade, "official": vqa.grade_mathvista_style}


def problem_of(gold: str, choices: Sequence[str] = (), kind: str = "", row: int = 0) -> Problem:
    """A problem of what a metric knows; raises ValueError for an empty gold answer or an unknown kind."""
    if not gold.strip():
        raise ValueError(f"reference {row} is empty: a gold answer is needed")
    if kind and kind not in KINDS:
        raise ValueError(f"kind {kind!r} of row {row} must be '' or one of {', '.join(KINDS)}")
    known: Any = kind or vqa.infer_kind(gold, choices)
    precision = len(gold.strip().partition(".")[2]) or None if known == "float" else None
    return Problem(str(row), "", gold, known, tuple(choices), precision=precision)


class VisualReasoningAccuracy(evaluate.Metric):
    """See the module's and `inputs_description`'s text; `add`, `add_batch` and `evaluate.combine` work as usual."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        gold = {"answer": text, "choices": datasets.Sequence(text), "kind": text}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=USAGE,
            features=[
                datasets.Features({"predictions": text, "references": text}),
                datasets.Features({"predictions": text, "references": gold}),
            ],
            reference_urls=["https://mathvista.github.io", "https://arxiv.org/abs/2310.02255"],
        )

    def _infer_feature_from_batch(self, batch: Mapping[str, Sequence[Any]]) -> datasets.Features:
        if not all(len(column) for column in batch.values()):
            raise ValueError("there are no predictions or no references: an accuracy needs at least one of each")
        return super()._infer_feature_from_batch(batch)

    def _compute(
        self,
        *,
        predictions: Sequence[str],
        references: Sequence[str | Mapping[str, Any]],
        choices: Sequence[Sequence[str] | None] | None = None,
        kinds: Sequence[str | None] | None = None,
        scorer: Scorer = "strict",
    ) -> dict[str, Any]:
        if scorer not in GRADERS:
            raise ValueError(f"scorer {scorer!r} must be one of {', '.join(GRADERS)}")
        total = len(predictions)
        for name, column in (("choices", choices), ("kinds", kinds)):
            if column is not None and len(column) != total:
                raise ValueError(f"{name} has {len(column)} rows, predictions have {total}")
        verdicts = []
        for row, (response, reference) in enumerate(zip(predictions, references, strict=True)):
            held = {"answer": reference} if isinstance(reference, str) else dict(reference)
            options = choices[row] if choices is not None else held.get("choices")
            kind = kinds[row] if kinds is not None else held.get("kind")
            problem = problem_of(held["answer"], options or (), kind or "", row)
            verdicts.append(GRADERS[scorer](problem, response))
        correct = sum(verdict.correct for verdict in verdicts)
        return {
            "accuracy": correct / total,
            "unparsed": sum(verdict.status == "unparsed" for verdict in verdicts) / total,
            "refusals": sum(verdict.status == "refusal" for verdict in verdicts) / total,
            "total": total,
            "interval": list(wilson_interval(correct, total)),
        }
