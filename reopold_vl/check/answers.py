"""Do answers end within the limit, and do prompts fit into theirs?"""

from __future__ import annotations

from collections.abc import Sequence

from reopold_vl.check.result import Result
from reopold_vl.types import Rollout

MANY_CUT = 0.1  # of the answers; a cut one is trained on but never seen to its end
MANY_SKIPPED = 0.1  # of the rows
MEND = "mend the rows, the limits, or the model's chat_template.jinja"


def answers_end(rollouts: Sequence[Rollout], *, max_new_tokens: int) -> Result:
    """Sampled answers end by themselves; a warning with the share of those that were cut."""
    name = "answers end"
    cut = sum(rollout.finish_reason == "length" for rollout in rollouts)
    lengths = sorted(len(rollout.response_ids) for rollout in rollouts)
    measured = (
        f"{cut} of {len(rollouts)} cut at {max_new_tokens} tokens, median length {lengths[len(lengths) // 2]}"
        if cut
        else f"all {len(rollouts)} end within {max_new_tokens} tokens, the longest after {lengths[-1]}"
    )
    if cut <= MANY_CUT * len(rollouts):
        return Result(name, "ok", measured)
    advice = "raise --rollout.max-new-tokens, or ask for short answers with --data.instruction"
    return Result(name, "warn", measured, advice)


def prompts_fit(lengths: Sequence[int], reasons: Sequence[str], *, max_prompt_tokens: int) -> Result:
    """Rows become prompts of at most `max_prompt_tokens`; `reasons` say why the others do not."""
    name = "prompts"
    rows = len(lengths) + len(reasons)
    if not lengths:
        return Result(name, "fail", f"none of {rows} rows can be encoded: {reasons[0]}", MEND)
    measured = f"{len(lengths)} of {rows} rows tried have {min(lengths)} to {max(lengths)} tokens"
    if not reasons:
        return Result(name, "ok", f"{measured} (limit {max_prompt_tokens:,})")
    measured = f"{measured}; {len(reasons)} are skipped, first {reasons[0]}"
    if len(reasons) <= MANY_SKIPPED * rows:
        return Result(name, "ok", measured)
    advice = "raise --rollout.max-prompt-tokens, or lower --images.max-pixels, or mend the rows"
    return Result(name, "warn", measured, advice)
