"""How often an image is touched in a step: by the vision tower, by PIL, by the image processor."""

from __future__ import annotations

from benchmarks.figures import trl
from benchmarks.figures.result import Figure
from benchmarks.figures.setup import Step, build, counted, naive_gap, samples, update_gap
from reopold_vl.objectives import ReverseKL
from reopold_vl.score import score_tokens

QUESTIONS, N, RESPONSE, UPDATES, SIDE = 2, 8, 4, 2, 112


def measure() -> list[Figure]:
    """n = 8, two updates, the student's tower frozen and its features kept. The teacher's own tower counts apart."""
    student, teacher = build(0, frozen=True, cache_mb=64), build(1, frozen=True)
    step = Step(student, teacher, N, RESPONSE, UPDATES)
    questions = samples(QUESTIONS, side=SIDE)
    with (
        counted(student.processor, student.policy.model) as ours,
        counted(student.processor, teacher.policy.model) as of,
    ):
        rollouts = step.run(questions, seed=0)
    checks = {
        "log-prob": (naive_gap(student, rollouts, score_tokens(student, rollouts, rows_at_once=64).logprobs), 1e-5),
        "update": (update_gap(student, rollouts, ReverseKL(), 64), 1e-5),
    }
    theirs = None
    if trl.installed():
        theirs = trl.grpo(build(0, frozen=True), questions, n=N, response=RESPONSE, updates=UPDATES, batches=1).counts
    found = []
    for name, mine, peer in (
        ("vision forwards", ours.towers, theirs and theirs.towers),
        ("image decodes", ours.opened, theirs and theirs.opened),
        ("images processed", ours.processed, theirs and theirs.processed),
    ):
        found.append(
            Figure(
                f"{name} per unique image per batch, n = {N}, {UPDATES} updates, frozen tower",
                "times",
                ours=mine / QUESTIONS,
                peer=None if peer is None else peer / QUESTIONS,
                peer_name="TRL GRPO",
                goal=1.0,
                of_ratio=False,
                checks=checks,
                details={"the teacher's own vision forwards": of.towers / QUESTIONS},
            )
        )
    return found
