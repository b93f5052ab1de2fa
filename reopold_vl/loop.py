"""The main loop: the student answers, the teacher scores, the objective says how hard to push, the student learns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
from tqdm import tqdm

from reopold_vl import assemble, checkpoint, distributed, outcome, rundir
from reopold_vl.ask import Asking
from reopold_vl.assemble import Parts
from reopold_vl.config import TrainConfig
from reopold_vl.feature_cache import cache_metrics
from reopold_vl.grading import accuracy, grade, grade_rollout
from reopold_vl.learn import LearnResult, learn
from reopold_vl.metrics import batch_metrics, learn_metrics, rollout_metrics, unscored_metrics
from reopold_vl.progress import Stopwatch
from reopold_vl.report.plots import append_histogram
from reopold_vl.report.table import Graded
from reopold_vl.rollout.build import build_engine
from reopold_vl.runlog import REWARD_HISTOGRAM_FILE, NoLog, RunLog, live_line
from reopold_vl.score import engine_gaps, score
from reopold_vl.seeds import derive_seed
from reopold_vl.sharding import whole_weights
from reopold_vl.shares import gather
from reopold_vl.showcase import FILE as SHOWCASE_FILE
from reopold_vl.showcase import keep_rollouts
from reopold_vl.stop import StopSignals
from reopold_vl.teachers import TeacherError
from reopold_vl.types import Rollout, ScoredBatch, TokenSignal


def run_steps(config: TrainConfig, parts: Parts, log: RunLog | NoLog, stop: StopSignals) -> None:
    """Train from `parts.progress.step` to `config.steps`; a stop signal ends it after a step, with a checkpoint."""
    student, progress, first = parts.student, parts.progress, distributed.is_first()
    engine = build_engine(student, **config.rollout.engine_settings)
    if progress.step == 0:
        log.log(0, {"rollout/total": 0, **validate(config, parts)})
    with (
        closing(Asking(config, parts, engine)) as asking,
        tqdm(
            total=config.steps,
            initial=progress.step,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            disable=not first,
        ) as bar,
        stop.deferred(),  # a signal is heeded after the step in hand, with a checkpoint
    ):
        for step in range(progress.step, config.steps):
            watch = Stopwatch()
            torch.manual_seed(derive_seed(config.seed, step, "torch"))
            with whole_weights(student.policy):
                asked = asking.step(step, watch)  # the student answers, the teacher is asked
                with watch("score"):
                    batch = score(asked.rollouts, asked.student, asked.teacher())
                    batch = parts.extras.fill(batch, asked.rollouts)
            rollouts, batch, owners = gather(asked.samples, asked.keys, asked.rollouts, batch)  # of all processes
            graded = [grade_rollout(student, rollout) for rollout in rollouts]
            batch = parts.extras.grade(batch, rollouts, [item.correct for item in graded])
            signal = config.objective(batch, step=step)  # the whole algorithm
            with watch("update"):
                result = learn(
                    parts.learner,
                    rollouts,
                    batch,
                    signal,
                    owners=owners,
                    divergence=parts.extras.divergence,
                    optimizer=parts.optimizer,
                    scheduler=parts.scheduler,
                    updates=config.optim.updates_per_batch,
                    rows_at_once=config.optim.rows_at_once,
                    max_grad_norm=config.optim.max_grad_norm,
                    pad_id=student.pad_id,
                )
                engine.sync()

            progress.count_step(rollouts=len(rollouts), skipped=result.skipped, seconds=watch.total)
            cost = watch.seconds | watch.cpu_parts | {"seconds/cpu": watch.cpu_seconds}  # before anything is measured
            metrics = cost | observe(config, parts, rollouts, batch, signal, result, graded)
            log.log(progress.step, metrics)
            bar.set_postfix_str(live_line(metrics))
            bar.update()
            progress.check_health(bad=bool(result.skipped or metrics["reward/nan"]), allowed=config.optim.max_bad_steps)
            stopping = stop.requested()
            if stopping or due(progress.step, config.save_every, config.steps):
                save(config, parts)
            if stopping:
                break


def observe(
    config: TrainConfig,
    parts: Parts,
    rollouts: Sequence[Rollout],
    batch: ScoredBatch,
    signal: TokenSignal,
    result: LearnResult,
    graded: Sequence[Graded],
) -> dict[str, float]:
    """The metrics of the step just done; its reward histogram and, now and then, sample answers are kept as well."""
    step = parts.progress.step
    metrics = {
        **batch_metrics(batch, signal),
        **rollout_metrics(rollouts, [item.correct for item in graded]),
        **unscored_metrics(rollouts, batch),
        **learn_metrics(result),
        "rollout/engine_gap": float(engine_gaps(rollouts, batch.old_logprobs).max()),
        **parts.progress.metrics(),
        **cache_metrics(parts.feature_caches()),
    }
    first = distributed.is_first()
    if first:
        append_histogram(config.run_dir / REWARD_HISTOGRAM_FILE, step, batch.rewards[batch.mask].tolist())
    measured = config.measures(step)
    if measured:
        metrics |= validate(config, parts)
        tqdm.write(f"step {step}/{config.steps}: {live_line(metrics)}")
    if first and (measured or step == 1):
        keep_rollouts(config.run_dir / SHOWCASE_FILE, step, parts.student, rollouts, batch, signal, graded)
    return metrics


def due(step: int, every: int, last: int) -> bool:
    """Whether something done every `every` steps (0: never) and after the last one is to be done after `step`."""
    return step == last or (every > 0 and step % every == 0)


def validate(config: TrainConfig, parts: Parts) -> dict[str, float]:
    """Greedy accuracy on the held-out problems that watch the training; nothing without such problems."""
    if not parts.splits.validation:
        return {}
    metrics = {"validation/accuracy": accuracy(answered(config, parts)), "validation/num": len(parts.splits.validation)}
    if parts.average is not None:
        with parts.average.in_place():
            metrics["validation/ema_accuracy"] = accuracy(answered(config, parts))
    return metrics


def answered(config: TrainConfig, parts: Parts) -> list[Graded]:
    """The student's answers to the problems that watch the training."""
    with whole_weights(parts.student.policy):
        return grade(
            parts.student,
            parts.splits.validation,
            max_new_tokens=config.rollout.max_new_tokens,
            rows_at_once=config.rollout.rows_at_once,
        )


def save(config: TrainConfig, parts: Parts) -> None:
    """A checkpoint of the step that is done."""
    checkpoint.save_checkpoint(
        config.run_dir / rundir.CHECKPOINTS_DIR,
        step=parts.progress.step,
        model=parts.student.policy.model,
        optimizer=parts.optimizer,
        scheduler=parts.scheduler,
        average=parts.average,
        state=parts.progress.state(),
        keep=config.keep,
    )


def open_log(config: TrainConfig, *, resume_step: int | None) -> RunLog | NoLog:
    """The run's log in the first process."""
    if not distributed.is_first():
        return NoLog()
    files = (REWARD_HISTOGRAM_FILE, SHOWCASE_FILE)
    return RunLog(config.run_dir, trackers=config.trackers, resume_step=resume_step, step_files=files)


def train(config: TrainConfig, *, resume: bool = False) -> dict[str, Any]:
    """A whole run: load and check, measure, train, measure again, report; returns the content of summary.json.

    Raises ValueError (one line) for bad input, `Stopped` when a signal ended the run (it can be resumed), TeacherError
    when the teacher was lost (so can that), TrainingDiverged after too many non-finite steps.
    """
    with (
        distributed.processes(timeout_minutes=config.distributed.timeout_minutes),
        StopSignals(distributed.largest).installed() as stop,
    ):
        return train_together(config, stop, resume=resume)


def train_together(config: TrainConfig, stop: StopSignals, *, resume: bool) -> dict[str, Any]:
    """`train`, once the processes have found each other; nothing for all but the first."""
    config.distributed.resolved()  # before anything is loaded
    parts = assemble.load(config)
    if distributed.is_first():
        assemble.open_run(config, resume=resume)
    print(*parts.splits.notes, *assemble.advice(config), f"pair: {parts.pair}", sep="\n")
    print(f"measuring student and teacher on {len(parts.splits.test):,} test problems, then training", flush=True)
    graded = outcome.measure_baselines(config, parts)
    assemble.restore(config, parts)
    first = parts.progress.step + 1 if parts.progress.step else 0
    with open_log(config, resume_step=first if resume else None) as log:
        try:
            run_steps(config, parts, log, stop)
        except TeacherError as error:  # a server that went away between two updates: what is learned is kept
            if distributed.size() == 1 and parts.progress.step:
                save(config, parts)
            raise TeacherError(f"{error}; go on with  python -m reopold_vl.train --resume {config.run_dir}") from error
    outcome.save_student(config, parts)
    graded["after"] = outcome.measure_after(config, parts)
    graded |= outcome.measure_average(config, parts)
    return outcome.report(config, parts, graded) if distributed.is_first() else {}
