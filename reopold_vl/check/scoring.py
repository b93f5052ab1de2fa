"""Do sampler, trainer and teacher agree on how likely a token is, where they must?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from reopold_vl.check.result import Result, small

# Cached decoding against one forward pass, mean over tokens in nats: fp32 agrees to 1e-6, bf16 to a few 1e-3 on small
# models and more on deep ones (a single token may be off by ten times that); a miswired model is off by 0.1 and more.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02}

# Two forward passes of the same few tokens, largest difference in logits.
HEAD_TOLERANCE = {"float32": 1e-2, "bfloat16": 1.0, "float16": 0.2}


def self_teacher(mean_reward: float, *, precision: str) -> Result:
    """The student as its own teacher must give R = 0. `mean_reward` is the mean |R| in nats over all tokens.

    The teacher's side encodes the samples again and scores them one at a time: padding, batching and the image path
    must not matter.
    """
    allowed = TOLERANCE[precision]
    if math.isnan(mean_reward):
        return Result(
            "self-teacher", "fail", "the student's log-probs are NaN", "broken weights, or a dtype that overflows"
        )
    if mean_reward <= allowed:
        return Result("self-teacher", "ok", f"the student as its own teacher gives mean |R| = {small(mean_reward)}")
    measured = f"the student as its own teacher gives mean |R| = {mean_reward:.3g} nats (allowed {allowed}): R is noise"
    return Result("self-teacher", "fail", measured, "batching changes its log-probs: try --student.attention eager")


def engine_gap(gap: float, *, precision: str, exact: bool) -> Result:
    """Sampling and scoring give the student's tokens the same log-probs; `gap` is the mean difference in nats."""
    allowed = TOLERANCE[precision]
    if gap <= allowed:
        use = "the sampler's are used" if exact else "the student is scored again"
        return Result("engine", "ok", f"sampler and trainer differ by {small(gap)} nats a token; {use}")
    measured = f"scoring disagrees with sampling by {gap:.3g} nats (allowed {allowed}): R would be noise"
    return Result(
        "engine", "fail", measured, "a cache or head that only generate() knows: try --student.attention eager"
    )


def head(gaps: Mapping[str, float], *, precision: str) -> Result:
    """Log-probs are computed from the output head's weights; a model that caps or scales what it projects would be
    scored wrongly. `gaps` are the largest differences of student and teacher, in logits (`Policy.head_gap`).
    """
    allowed = HEAD_TOLERANCE[precision]
    broken = next((whose for whose, gap in gaps.items() if math.isnan(gap)), None)
    if broken is not None:
        return Result("head", "skip", f"the {broken} gives NaN")
    whose, gap = max(gaps.items(), key=lambda item: item[1])
    if gap <= allowed:
        return Result("head", "ok", f"what the head projects is what the model says ({' and '.join(gaps)})")
    measured = f"the {whose}'s logits differ from what its head projects by {gap:.3g}: it caps or scales them"
    return Result("head", "fail", measured, "its log-probs would be wrong here: take a model without such a cap")


def server_gap(gap: float, *, precision: str) -> Result:
    """A teacher behind a URL against the same model in this process; `gap` is the mean difference in nats."""
    allowed = TOLERANCE[precision]
    if gap <= allowed:
        return Result("server", "ok", f"differs from the local copy by {small(gap)} nats a token")
    measured = f"the server's log-probs differ from the local copy's by {gap:.3g} nats a token (allowed {allowed})"
    return Result("server", "fail", measured, "it serves other weights, another template or another pixel budget")
