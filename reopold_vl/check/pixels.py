"""Do the pictures arrive: the same grid for both models, and log-probs that change with the pixels?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from reopold_vl.check.result import Result, small
from reopold_vl.teachers import SampleView

UNSEEN = 1e-6  # nats: fp32 noise of one and the same pass; a model that looks moves by 1e-3 and more
OTHER_AREA = 1.5  # models of other patch sizes round a picture differently, but not by this much


def image_tokens(ours: Sequence[SampleView], theirs: Sequence[SampleView] | None, *, same_factor: bool) -> Result:
    """Each model gets placeholders for its pictures, and both look at pictures of the same size.

    Models whose visual tokens cover the same pixels (`same_factor`) must agree exactly: one with another pixel limit
    would look at another picture. With other patch sizes the areas may differ by rounding.
    """
    name = "image tokens"
    pictured = [index for index, view in enumerate(ours) if view.image_sizes]
    if not pictured:
        return Result(name, "skip", "the rows tried have no images")
    for whose, views in (("student", ours), ("teacher", theirs or [])):
        if any(views[index].image_tokens == 0 for index in pictured if views):
            measured = f"the {whose}'s chat template renders no image: there is no place for the pixels in the prompt"
            return Result(name, "fail", measured, "its chat_template.jinja must turn image parts into the image token")
    mine = sum(ours[index].image_tokens for index in pictured)
    if theirs is None:
        return Result(name, "skip", f"{mine:,} for the student's {len(pictured)} prompts; the teacher does not tell")
    for index in pictured:
        one, other = ours[index], theirs[index]
        apart = _apart(one, other) if same_factor else _area(one, other) > OTHER_AREA
        if apart:
            seen = [f"{view.image_tokens} tokens from pixels {_sizes(view)}" for view in (one, other)]
            measured = f"image grids differ: {seen[0]} for the student and {seen[1]} for the teacher"
            return Result(name, "fail", measured, "give both --images.min-pixels and --images.max-pixels they can keep")
    other_mine = sum(theirs[index].image_tokens for index in pictured)
    if same_factor:
        return Result(name, "ok", f"{mine:,} in {len(pictured)} prompts, the same grids for both")
    return Result(name, "ok", f"{mine:,} for the student, {other_mine:,} of another patch size for the teacher")


def _apart(one: SampleView, other: SampleView) -> bool:
    return one.image_sizes != other.image_sizes or one.image_tokens != other.image_tokens


def _area(one: SampleView, other: SampleView) -> float:
    """The largest quotient of the two models' areas of a picture, 1 or more."""
    areas = [[width * height for width, height in view.image_sizes] for view in (one, other)]
    return max((max(a / b, b / a) for a, b in zip(*areas, strict=True)), default=1.0)


def _sizes(view: SampleView) -> str:
    return ", ".join(f"{width}x{height}" for width, height in view.image_sizes)


def pixels(
    whose: str,
    plain: Float[Tensor, "batch time"],
    inverted: Float[Tensor, "batch time"],
    swapped: Float[Tensor, "batch time"],
) -> Result:
    """Inverted colours, and another picture in its place, change the log-probs of the same tokens.

    The three are log-probs of the same rollouts; rows without an image are left out by the caller. Nats.
    """
    name = f"{whose} sees"
    if bool(torch.stack([plain, inverted, swapped]).isnan().any()):
        return Result(name, "fail", f"the {whose} gives NaN for log-probs", "broken weights, or a dtype that overflows")
    if plain.numel() == 0:
        return Result(name, "skip", "the rows tried have no images")
    effects = [float((changed - plain).abs().max()) for changed in (inverted, swapped)]
    if min(effects) > UNSEEN:
        measured = (
            f"log-probs move by {small(effects[0])} nats with inverted pixels, {small(effects[1])} with another picture"
        )
        return Result(name, "ok", measured)
    measured = f"the {whose} does not see the image: other pixels, same log-probs"
    advice = "its image input is dropped on the way: check its processor, its class and, behind a URL, the server"
    return Result(name, "fail", measured, advice)
