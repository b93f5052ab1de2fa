"""What a teacher server's replies must be before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reopold_vl.serving.wire import API, SERVER, decode_logprob, png_size
from reopold_vl.teachers import TeacherError


def require_ours(url: str, info: Any) -> None:
    """Raise TeacherError for a server that is not `reopold_vl.serve_teacher` or speaks another version of it."""
    fields = ("model", "num_parameters", "eos_ids", "vocabulary_sha256", "image_factor", "image_grid", "limits")
    if not isinstance(info, dict) or info.get("server") != SERVER or any(name not in info for name in fields):
        raise TeacherError(f"{url} is no teacher server: start one with python -m {SERVER}")
    if info.get("api") != API:
        raise TeacherError(f"{url} speaks version {info.get('api')} of the teacher server, this package version {API}")


def checked_logprobs(place: str, item: Mapping[str, Any], found: Any) -> list[list[float]]:
    """The log-probs of one prompt's responses; raises TeacherError unless each belongs to the very token sent."""
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or len(choices) != len(item["responses"]):
        raise TeacherError(f"{place}: {len(item['responses'])} responses were sent, and not as many were scored")
    sizes, seen = [list(png_size(image)) for image in item["images"]], found.get("image_sizes")
    if seen != sizes or bool(sizes) != bool(found.get("image_tokens")):
        raise TeacherError(f"{place}: pictures of {sizes} pixels were sent, the server looked at {seen}")
    rows = []
    for sent, choice in zip(item["responses"], choices, strict=True):
        if not isinstance(choice, dict) or choice.get("token_ids") != sent:
            raise TeacherError(f"{place}: other token ids were scored than were sent")
        values = choice.get("logprobs")
        if not isinstance(values, list) or len(values) != len(sent):
            count = len(values) if isinstance(values, list) else "no"
            raise TeacherError(f"{place}: {count} log-probs for {len(sent)} tokens")
        try:
            rows.append([decode_logprob(value) for value in values])
        except ValueError as error:
            raise TeacherError(f"{place}: {error}") from None
        if any(value > 1e-3 for value in rows[-1]):
            raise TeacherError(f"{place}: a log-prob of {max(rows[-1]):.4g}, above 0")
    return rows
