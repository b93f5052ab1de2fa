"""CPU time of a whole training step for each response token that is trained on."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.figures import trl
from benchmarks.figures.result import Figure, cpu_seconds
from benchmarks.figures.setup import SIZE, Step, build, engine, naive_gap, random_answers, samples, update_gap
from reopold_vl.collate import collate_rollouts
from reopold_vl.objectives import Reopold, ReverseKL
from reopold_vl.score import score_tokens
from reopold_vl.types import Prompt, Rollout

QUESTIONS, N, RESPONSE, UPDATES, SIDE, BATCHES = 2, 8, 48, 2, 448, 2


def measure() -> list[Figure]:
    """All weights are trained, the tower's as well, and both have a teacher but GRPO, which needs none."""
    questions = samples(QUESTIONS, side=SIDE)
    student, teacher = build(0), build(1)
    step = Step(student, teacher, N, RESPONSE, UPDATES)
    step.run(questions, seed=0)
    rollouts, seconds = cpu_seconds(lambda: [step.run(questions, seed) for seed in range(1, BATCHES + 1)])
    tokens = sum(len(rollout.response_ids) for batch in rollouts for rollout in batch)
    ours = seconds / tokens
    checks = agreement(rollouts[0])
    theirs = alone = None
    if trl.installed():
        theirs = trl.grpo(build(0), questions, n=N, response=RESPONSE, updates=UPDATES, batches=BATCHES)
        more = samples(QUESTIONS * 4, side=SIDE)
        alone = trl.distillation(build(0), build(1), more, response=RESPONSE, batches=1)
        prompts = [student.encoder(question) for question in questions]
        checks["mean(-R) against TRL's beta = 1 loss, standard errors"] = (identity(prompts), 3.0)
    name, unit = f"a step's time for each response token, n = {N}, {UPDATES} updates", "CPU ms"
    details = {"prompt tokens": len(rollouts[0][0].prompt.ids), "response tokens": RESPONSE}
    return [
        Figure(
            name,
            unit,
            ours=1e3 * ours,
            peer=None if peer is None else 1e3 * peer.seconds_per_token,
            peer_name=peer_name,
            goal=goal,
            checks=checks,
            details=details | ({} if peer is None else {"the peer's images touched": vars(peer.counts)}),
        )
        for peer, peer_name, goal in ((theirs, "TRL GRPO, no teacher", 0.25), (alone, "TRL distillation, n = 1", 0.5))
    ]


def agreement(rollouts: list[Rollout]) -> dict[str, tuple[float, float]]:
    """Our log-probs and our update against plain transformers, on answers of different lengths."""
    model = build(0)
    prompts = list({id(rollout.prompt): rollout.prompt for rollout in rollouts}.values())
    lengths = [[3, 9, 1, 17], [12, 2, 6, 5]]
    answers = random_answers(prompts, lengths)
    found = score_tokens(model, answers, rows_at_once=64).logprobs
    return {
        "log-prob": (naive_gap(model, answers, found), 1e-5),
        "update, all tokens": (update_gap(model, answers, ReverseKL(), 64), 1e-4),
        "update, kept tokens": (update_gap(model, answers, Reopold(0.2, 0.2, switch_step=0), 64), 1e-4),
    }


@torch.no_grad()
def identity(prompts: list[Prompt]) -> float:
    """|mean(-R) - TRL's reverse KL| over tokens that the student drew, in standard errors of the mean.

    R = log pi_T - log pi_S of a drawn token is minus an unbiased estimate of KL(pi_S || pi_T) in its context, and
    without floor, mask and earlier updates mean(-R) is our loss. The vocabulary has no padding here: what is never
    drawn would have a share in the divergence.
    """
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # pyright: ignore

    whole = replace(SIZE, vocabulary=len(build(0, size=SIZE).tokenizer))
    student, teacher = (build(seed, size=whole) for seed in (0, 1))
    drawn = engine(student, 64).generate(prompts, n=N, max_new_tokens=RESPONSE, seed=99)
    batch = collate_rollouts(drawn, pad_id=student.pad_id)
    states = [model.policy.response_states(batch) for model in (student, teacher)]
    heads = [model.policy.model.get_output_embeddings().weight for model in (student, teacher)]
    loss, _, _ = _chunked_divergence_loss(*states, *heads, batch.mask, beta=1.0)  # pyright: ignore
    logprobs = [score_tokens(model, drawn, rows_at_once=64).logprobs for model in (student, teacher)]
    rewards = (logprobs[1] - logprobs[0])[batch.mask]
    error = float(rewards.std()) / len(rewards) ** 0.5
    return abs(float(-rewards.mean()) - float(loss)) / error
