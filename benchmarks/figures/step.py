"""CPU time of a whole training step for each response token that is trained on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from benchmarks.figures import trl
from benchmarks.figures.result import Figure, cpu_seconds
from benchmarks.figures.setup import (
    SIZE,
    Step,
    build,
    engine,
    naive_gap,
    random_answers,
    samples,
    tensor_gap,
    update_gap,
)
from eval.flops import operations
from reopold_vl.collate import collate_rollouts
from reopold_vl.divergence import TeacherSide, token_losses
from reopold_vl.objectives import GKD, Reopold, ReverseKL
from reopold_vl.score import score_tokens
from reopold_vl.types import Prompt

QUESTIONS, N, UPDATES, BATCHES = 2, 8, 2, 2
# Response tokens and the side of the picture: what is shared is the prompt, so its length against the answers' decides.
SHAPES = ((48, 448), (192, 448), (192, 896))


def measure() -> list[Figure]:
    """All weights are trained, the tower's as well, and both have a teacher but GRPO, which needs none."""
    response, side = SHAPES[0]
    prompts = [build(0).encoder(question) for question in samples(QUESTIONS, side=side)]
    checks = agreement(prompts) | (identity(prompts, response) if trl.installed() else {})
    return [figure for response, side in SHAPES for figure in of_shape(response, side, checks)]


def of_shape(response: int, side: int, checks: dict[str, tuple[float, float]]) -> list[Figure]:
    """Our step and the peers', `response` tokens to each answer; the first batch of each is to warm up."""
    questions = samples(QUESTIONS, side=side)
    step = Step(build(0), build(1), N, response, UPDATES)
    step.run(questions, seed=0)
    rollouts, seconds = cpu_seconds(lambda: [step.run(questions, seed) for seed in range(1, BATCHES + 1)])
    ours = seconds / sum(len(rollout.response_ids) for batch in rollouts for rollout in batch)
    theirs = alone = None
    if trl.installed():
        theirs = trl.grpo(build(0), questions, n=N, response=response, updates=UPDATES, batches=BATCHES)
        more = samples(QUESTIONS * 4, side=side)
        alone = trl.distillation(build(0), build(1), more, response=response, batches=BATCHES)
    prompt = len(rollouts[0][0].prompt.ids)
    tokens = QUESTIONS * N * response
    arithmetic = {"ours": operations(lambda: step.run(questions, seed=0)) / tokens}
    if trl.installed():
        batch = partial(trl.grpo, build(0), questions, n=N, response=response, updates=UPDATES, batches=0)
        arithmetic["peer"] = operations(batch) / tokens
    return [
        Figure(
            f"a step's time for each response token, n = {N}, {UPDATES} updates, {response} tokens behind {prompt}",
            "CPU ms",
            ours=1e3 * ours,
            peer=None if peer is None else 1e3 * peer.seconds_per_token,
            peer_name=peer_name,
            goal=goal,
            checks=checks,
            details={"shape": [response, prompt], "operations": arithmetic if peer is theirs else {}}
            | ({} if peer is None else {"the peer's images touched": vars(peer.counts)}),
        )
        for peer, peer_name, goal in ((theirs, "TRL GRPO, no teacher", 0.25), (alone, "TRL distillation, n = 1", 0.5))
    ]


def arithmetic_text(figures: list[Figure]) -> str:
    """Markdown: the operations behind each step's time, ours beside the peer's."""
    lines = ["| a step for each token | MFLOP | of TRL GRPO | ratio | ratio of CPU time |", "|---|---:|---:|---:|---:|"]
    for figure in figures:
        found = figure.details["operations"]
        if "peer" not in found or figure.ratio is None:
            continue
        response, prompt = figure.details["shape"]
        lines.append(
            f"| {response} tokens behind {prompt} | {found['ours'] / 1e6:.1f} | {found['peer'] / 1e6:.1f} | "
            f"{found['ours'] / found['peer']:.3f} | {figure.ratio:.3f} |"
        )
    return "\n".join(lines) + "\n"


def agreement(prompts: list[Prompt]) -> dict[str, tuple[float, float]]:
    """Our log-probs and our update against plain transformers, on answers of different lengths."""
    model = build(0)
    lengths = [[3, 9, 1, 17], [12, 2, 6, 5]]
    answers = random_answers(prompts, lengths)
    found = score_tokens(model, answers, rows_at_once=64).logprobs
    return {
        "log-prob": (naive_gap(model, answers, found), 1e-5),
        "update, all tokens": (update_gap(model, answers, ReverseKL(), 64), 1e-5),
        "update, kept tokens": (update_gap(model, answers, Reopold(0.2, 0.2, switch_step=0), 64), 1e-5),
    }


def identity(prompts: list[Prompt], response: int) -> dict[str, tuple[float, float]]:
    """Ours against TRL's reverse KL (its distillation loss at beta = 1), on answers that the student drew.

    The divergence loss, and its gradient by all of the student's weights, on the same tokens; and mean(-R), our loss
    without floor, mask and earlier updates, in standard errors: R = log pi_T - log pi_S of a drawn token is minus an
    unbiased estimate of KL(pi_S || pi_T) in its context. Any token may be drawn, as the divergence sums over all; the
    few answers in which that was an image's placeholder, which no model takes in an answer, are left out.
    """
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # pyright: ignore

    whole = replace(SIZE, vocabulary=len(build(0, size=SIZE).tokenizer))
    student, teacher = (build(seed, size=whole) for seed in (0, 1))
    placeholder = student.policy.model.config.image_token_id
    drawn = engine(student, 64, all_tokens=True).generate(prompts, n=2 * N, max_new_tokens=response, seed=99)
    drawn = [rollout for rollout in drawn if placeholder not in rollout.response_ids]
    batch = collate_rollouts(drawn, pad_id=student.pad_id)
    with torch.no_grad():
        seen = teacher.policy.response_states(batch)
        rewards = score_tokens(teacher, drawn, rows_at_once=64).logprobs
        rewards = (rewards - score_tokens(student, drawn, rows_at_once=64).logprobs)[batch.mask]
    weights = [weight for weight in student.policy.parameters() if weight.requires_grad]
    heads = [model.policy.model.get_output_embeddings().weight for model in (student, teacher)]

    states = student.policy.response_states(batch)
    theirs = _chunked_divergence_loss(states, seen, heads[0], heads[1], batch.mask, beta=1.0)[0]  # pyright: ignore
    wanted = torch.autograd.grad(theirs, weights, allow_unused=True)
    nothing = torch.zeros(len(rewards))
    ours = token_losses(
        student.policy.response_states(batch)[batch.mask],
        heads[0],
        None,
        batch.response_ids[batch.mask],
        teacher=TeacherSide(teacher, seen[batch.mask]),
        objective=GKD(1.0),
        old_logprobs=nothing,
        advantages=nothing,
    ).loss.mean()
    found = torch.autograd.grad(ours, weights, allow_unused=True)
    gap = tensor_gap([(one, other) for one, other in zip(found, wanted, strict=True) if one is not None])
    error = float(rewards.std()) / len(rewards) ** 0.5
    return {
        "TRL's beta = 1 loss": (abs(float((ours - theirs).detach() / theirs.detach())), 1e-5),
        "its gradient": (gap, 1e-5),
        "mean(-R) against it, standard errors": (abs(float(-rewards.mean() - theirs.detach())) / error, 3.0),
    }
