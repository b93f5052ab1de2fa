"""The recipe `teacher_responses`: a model's right responses to another recipe's prompts, as rows; and pass rates.

Rejection sampling as in Yuan et al., "Scaling Relationship on Learning Mathematical Reasoning with Large Language
Models", 2023, arXiv:2308.01825: k responses to a prompt, the right and distinct ones are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_recipes.recipes import teacher_responses
from data_recipes.recipes.reading import EXTRA, ORIGIN, Origin, origin_of
from data_recipes.sampling import BLOCK, Sampled, Sampling, load_sampler, pass_rates, sample_block
from data_recipes.stream import Stream
from data_recipes.types import RecipeError, Row, RowError
from reopold_vl.types import VisualSample

if TYPE_CHECKING:
    from reopold_vl.models import VisionLanguageModel

__all__ = ["BLOCK", "Sampled", "Sampling", "load_sampler", "pass_rates", "sample_block", "teacher_stream"]


def teacher_stream(base: Stream, model: VisionLanguageModel, sampling: Sampling, *, max_responses: int = 1) -> Stream:
    """The rows of `base` with the teacher's responses: up to `max_responses` right and distinct ones to each prompt.

    Row n of `base` becomes rows n * max_responses, n * max_responses + 1, ..., each with `response`, `num_right`,
    `num_samples` and `pass_rate`; a prompt without a right response becomes one row that reading refuses, so it is
    counted (as `no_response`) with its reason. `rows_from(skip)` redoes at most the block in which `skip` lies, with
    the same responses.
    """
    if max_responses < 1:
        raise RecipeError(f"max_responses is {max_responses}: allowed is 1 or more")

    def rows(skip: int) -> Iterator[tuple[int, Row]]:
        first = skip // max_responses // BLOCK * BLOCK
        for block, group in itertools.groupby(base.rows_from(first), key=lambda pair: pair[0] // BLOCK):
            for number, row in _responses(base, list(group), model, sampling, block, max_responses):
                if number >= skip:
                    yield number, row

    recipe = replace(
        teacher_responses.RECIPE,
        licence=f"{base.recipe.licence}; the teacher's licence ({model.path}) may restrict the use of its output",
        citation="; ".join(filter(None, (base.recipe.citation, teacher_responses.RECIPE.citation))),
        read=read_response,
        forbidden=base.recipe.forbidden,
    )
    drawn = f"{sampling.k} answers a prompt at temperature {sampling.temperature:g}, seed {sampling.seed}"
    origin = f"{model.path} on {base.recipe.name} ({base.origin})"
    notes = (*base.notes, f"teacher {model.path}: {drawn}, at most {max_responses} right ones kept")
    return Stream(recipe, origin, base.revision, base.split, None, rows, notes, (base,))


def read_response(row: Row) -> VisualSample:
    """The sample of a row made by `teacher_stream`; raises RowError for a prompt without a right response."""
    origin_of(row).check()
    return row["sample"]


def _responses(
    base: Stream,
    lot: Sequence[tuple[int, Row]],
    model: VisionLanguageModel,
    sampling: Sampling,
    block: int,
    max_responses: int,
) -> Iterator[tuple[int, Row]]:
    readable: dict[int, VisualSample] = {}
    refused: dict[int, RowError] = {}
    for number, row in lot:
        try:
            readable[number] = base.recipe.read(row)
        except RowError as error:
            refused[number] = error
    sampled = sample_block(model, list(readable.values()), sampling, block=block)
    by_number = dict(zip(readable, sampled, strict=True))
    for number, row in lot:
        first = number * max_responses
        if number in refused:
            error = refused[number]
            yield first, _refused(row.get("id"), str(error), error.filter)
        else:
            yield from enumerate(_rows_of(by_number[number], max_responses), first)


def _rows_of(sampled: Sampled, max_responses: int) -> list[dict[str, Any]]:
    sample, kept = sampled.sample, sampled.kept()[:max_responses]
    if not kept:
        total = len(sampled.responses)
        cut = sum(not finished for finished in sampled.finished)
        reason = sampled.error or f"no right and finished response: {sampled.num_right} of {total} right, {cut} cut off"
        return [_refused(sample.id, reason, "no_response")]
    counts = {"num_right": sampled.num_right, "num_samples": len(sampled.responses), "pass_rate": sampled.pass_rate}
    ids = [sample.id] if len(kept) == 1 else [f"{sample.id}#{place}" for place in range(len(kept))]
    return [
        {"sample": replace(sample, id=id), ORIGIN: Origin("teacher_responses"), EXTRA: {"response": response, **counts}}
        for id, response in zip(ids, kept, strict=True)
    ]


def _refused(id: Any, reason: str, filter: str) -> dict[str, Any]:
    return {"id": id, ORIGIN: Origin("teacher_responses", error=reason, filter=filter)}
