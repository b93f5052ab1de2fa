r"""Rewards where student and teacher cut the same text into other tokens: on the smallest text spans that both share.

Both token sequences spell the same bytes b_1 ... b_n. Where a student token and a teacher token end at the same byte,
there is a common boundary; the text between two neighbouring ones is a span, which no finer cut of both sequences has.
Within a span the two models cannot be compared token by token, as a whole they can:

    R_k = log pi_T(span k | before) - log pi_S(span k | before)
        = sum_{teacher tokens of k} log pi_T - sum_{student tokens of k} log pi_S

This is policy gradient with the span as one action a_k = (o_i, ..., o_j). The student draws it with probability
pi_S(a_k) = prod_{t=i..j} pi_S(o_t | s_t), so by Remark 3.1 of REOPOLD (arXiv 2603.11137) with actions for tokens

    grad = E[ sum_k R_k grad log pi_S(a_k) ] = E[ sum_k R_k sum_{t in k} grad log pi_S(o_t | s_t) ]

and each token of a span carries the whole R_k, neither its share of it nor its mean. With several updates a batch the
loss sums rho_t R_k over the span's tokens, where rho of the action would be their product: the same to first order in
the step. A span of one token on either side is the token-level reward itself.

log pi_T(span) is that of the teacher's own spelling of the text, as if it could write it in no other way: a lower
bound, and close where the tokenizer is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

OPEN = -1  # the span number of a token that no common boundary follows


def common_spans(student: Sequence[int], teacher: Sequence[int]) -> tuple[list[int], list[int]]:
    """The span number of every token of both sides, from the tokens' lengths in bytes.

    Spans are numbered 0, 1, ... and hold at least one token of each side; a token of no bytes joins the span after it.
    Tokens behind the last common boundary get OPEN.
    """
    sides = (student, teacher)
    numbers: tuple[list[int], list[int]] = ([], [])
    closed = [0, 0]  # tokens of each side that are in finished spans
    ends = [0, 0]  # bytes of each side that have been walked over
    span = 0
    while True:
        # The side that is behind takes its next token; where both are level, one that has none in this span yet.
        if ends[0] == ends[1]:
            begun = [len(numbers[side]) > closed[side] for side in (0, 1)]
            if all(begun):
                closed = [len(numbers[0]), len(numbers[1])]
                span += 1
                continue
            side = begun.index(False)
        else:
            side = ends.index(min(ends))
        if len(numbers[side]) == len(sides[side]):
            break
        ends[side] += sides[side][len(numbers[side])]
        numbers[side].append(span)
    for side in (0, 1):
        numbers[side][closed[side] :] = [OPEN] * (len(sides[side]) - closed[side])
    return numbers


def span_sums(logprobs: Float[Tensor, "batch time"], spans: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """On every token the sum of `logprobs` over its span; 0 where there is none.

    `spans` numbers a row's spans from 0 to at most T - 1.
    """
    inside, index = spans >= 0, spans.clamp(min=0)
    values = torch.where(inside, logprobs, 0.0)
    return torch.where(inside, torch.zeros_like(values).scatter_add(1, index, values).gather(1, index), 0.0)


def span_rewards(
    old_logprobs: Float[Tensor, "batch time"],
    teacher_logprobs: Float[Tensor, "batch time"],
    spans: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch time"]:
    """R_k of its span on every token, 0 where there is none, in nats.

    `teacher_logprobs` holds log pi_T of the whole span on each of its tokens (`types.TeacherScores`), `old_logprobs`
    the student's log-prob of each token by itself.
    """
    return torch.where(spans >= 0, teacher_logprobs - span_sums(old_logprobs, spans), 0.0)
