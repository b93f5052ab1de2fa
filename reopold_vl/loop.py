"""The main loop: the student answers, the teacher scores, the objective says how hard to push, the student learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from reopold_vl import assemble, checkpoint, outcome, rundir
from reopold_vl.assemble import Parts
from reopold_vl.config import TrainConfig
from reopold_vl.grading import accuracy, grade, grade_rollout, write_graded
from reopold_vl.learn import LearnResult, learn
from reopold_vl.metrics import batch_metrics, learn_metrics, rollout_metrics
from reopold_vl.progress import Stopwatch
from reopold_vl.report.plots import append_histogram
from reopold_vl.runlog import REWARD_HISTOGRAM_FILE, RunLog, live_line
from reopold_vl.score import engine_gaps, score
from reopold_vl.seeds import derive_seed
from reopold_vl.showcase import FILE as SHOWCASE_FILE
from reopold_vl.showcase import keep_rollouts
from reopold_vl.splits import draw
from reopold_vl.stop import StopSignals
from reopold_vl.types import Rollout, ScoredBatch, TokenSignal


def run_steps(config: TrainConfig, parts: Parts, log: RunLog, stop: StopSignals) -> None:
    """Train from `parts.progress.step` to `config.steps`; a stop signal ends it after a step, with a checkpoint."""
    student, progress = parts.student, parts.progress
    engine = student.engine(rows_at_once=config.rollout.rows_at_once)
    if progress.step == 0:
        log.log(0, {"rollout/total": 0, **validate(config, parts)})
    with (
        tqdm(total=config.steps, initial=progress.step, desc="training", unit="step", dynamic_ncols=True) as bar,
        stop.deferred(),  # a signal is heeded after the step in hand, with a checkpoint
    ):
        for step in range(progress.step, config.steps):
            watch = Stopwatch()
            torch.manual_seed(derive_seed(config.seed, step, "torch"))
            with watch("rollout"):
                samples = draw(parts.splits.train, config.prompts_per_step, seed=config.seed, step=step)
                prompts = parts.encode(samples)
                rollouts = engine.generate(
                    prompts,
                    n=config.rollout.n,
                    max_new_tokens=config.rollout.max_new_tokens,
                    seed=derive_seed(config.seed, step, "rollout"),
                )
            with watch("score"):
                rows = config.optim.rows_at_once
                batch = score(rollouts, *parts.views(rollouts, exact=engine.exact, rows_at_once=rows))
            signal = config.objective(batch, step=step)  # the whole algorithm
            with watch("update"):
                result = learn(
                    student.policy,
                    rollouts,
                    batch,
                    signal,
                    optimizer=parts.optimizer,
                    scheduler=parts.scheduler,
                    updates=config.optim.updates_per_batch,
                    rows_at_once=rows,
                    max_grad_norm=config.optim.max_grad_norm,
                    pad_id=student.pad_id,
                )
                engine.sync()

            progress.count_step(rollouts=len(rollouts), skipped=result.skipped, seconds=watch.total)
            metrics = watch.seconds | observe(config, parts, rollouts, batch, signal, result)
            log.log(progress.step, metrics)
            bar.set_postfix_str(live_line(metrics))
            bar.update()
            progress.check_health(bad=bool(result.skipped or metrics["reward/nan"]), allowed=config.optim.max_bad_steps)
            if stop.requested or due(progress.step, config.save_every, config.steps):
                save(config, parts)
            if stop.requested:
                break


def observe(
    config: TrainConfig,
    parts: Parts,
    rollouts: Sequence[Rollout],
    batch: ScoredBatch,
    signal: TokenSignal,
    result: LearnResult,
) -> dict[str, float]:
    """The metrics of the step just done; its reward histogram and, now and then, sample answers are kept as well."""
    step = parts.progress.step
    graded = [grade_rollout(parts.student, rollout) for rollout in rollouts]
    metrics = {
        **batch_metrics(batch, signal),
        **rollout_metrics(rollouts, [item.correct for item in graded]),
        **learn_metrics(result),
        "rollout/engine_gap": float(engine_gaps(rollouts, batch.old_logprobs).max()),
        **parts.progress.metrics(),
    }
    append_histogram(config.run_dir / REWARD_HISTOGRAM_FILE, step, batch.rewards[batch.mask].tolist())
    measured = due(step, config.eval_every, config.steps)
    if measured:
        metrics |= validate(config, parts)
        tqdm.write(f"step {step}/{config.steps}: {live_line(metrics)}")
    if measured or step == 1:
        keep_rollouts(config.run_dir / SHOWCASE_FILE, step, parts.student, rollouts, batch, signal, graded)
    return metrics


def due(step: int, every: int, last: int) -> bool:
    """Whether something done every `every` steps (0: never) and after the last one is to be done after `step`."""
    return step == last or (every > 0 and step % every == 0)


def validate(config: TrainConfig, parts: Parts) -> dict[str, float]:
    """Greedy accuracy on the held-out problems that watch the training; nothing without such problems."""
    if not parts.splits.validation:
        return {}
    graded = grade(
        parts.student,
        parts.splits.validation,
        max_new_tokens=config.rollout.max_new_tokens,
        rows_at_once=config.rollout.rows_at_once,
    )
    return {"validation/accuracy": accuracy(graded), "validation/num": len(graded)}


def save(config: TrainConfig, parts: Parts) -> None:
    checkpoint.save_checkpoint(
        config.run_dir / rundir.CHECKPOINTS_DIR,
        step=parts.progress.step,
        model=parts.student.policy.model,
        optimizer=parts.optimizer,
        scheduler=parts.scheduler,
        state=parts.progress.state(),
        keep=config.keep,
    )


def train(config: TrainConfig, *, resume: bool = False) -> dict[str, Any]:
    """A whole run: load and check, measure, train, measure again, report; returns the content of summary.json.

    Raises ValueError (one line) for bad input, `Stopped` when a signal ended the run (it can be resumed),
    TrainingDiverged after too many non-finite steps.
    """
    with StopSignals().installed() as stop:
        parts = assemble.load(config)
        assemble.open_run(config, resume=resume)
        print(*parts.splits.notes, *assemble.advice(config), f"pair: {parts.pair}", sep="\n")
        print(f"measuring student and teacher on {len(parts.splits.test):,} test problems, then training", flush=True)
        graded = outcome.measure_baselines(config, parts)
        assemble.restore(config, parts)
        first = parts.progress.step + 1 if parts.progress.step else 0
        with RunLog(
            config.run_dir,
            trackers=config.trackers,
            resume_step=first if resume else None,
            step_files=(REWARD_HISTOGRAM_FILE, SHOWCASE_FILE),
        ) as log:
            run_steps(config, parts, log, stop)
        checkpoint.write_atomically(config.run_dir / rundir.STUDENT_DIR, parts.student.save)
        graded["after"] = outcome.measure(config, parts.student, parts.splits.test, "student after, test problems")
        write_graded(graded["after"], config.run_dir / "test_after.jsonl")
    return outcome.report(config, parts, graded)
