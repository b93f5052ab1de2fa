"""From a configuration to the parts of a run. Config objects end here, in `outcome.py` and in `loop.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from reopold_vl import checkpoint, distributed, rundir
from reopold_vl.assemble_models import checked_teacher, load_reference, load_student, spread_student
from reopold_vl.check import PairReport
from reopold_vl.check.budget import budget, require_memory
from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.config_file import write_config
from reopold_vl.data import DataError
from reopold_vl.ema import MovingAverage
from reopold_vl.feature_cache import FeatureCache
from reopold_vl.models import VisionLanguageModel, pick_device
from reopold_vl.needs import Extras, require_overlap, require_possible
from reopold_vl.optim import build_optimizer, build_scheduler
from reopold_vl.prefetch import EncodingAhead
from reopold_vl.presets import EMBEDDED
from reopold_vl.progress import Progress
from reopold_vl.rollout.build import require_engine
from reopold_vl.runlog import check_trackers
from reopold_vl.sharding import Learner, whole_weights
from reopold_vl.shares import encode_share
from reopold_vl.splits import Splits, embedded_splits, file_splits
from reopold_vl.teachers import Teacher
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import RoutedTeacher
from reopold_vl.types import Prompt, VisualSample


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of, once it is loaded."""

    student: VisionLanguageModel
    learner: Learner
    teacher: Teacher
    splits: Splits
    pair: PairReport
    optimizer: torch.optim.Optimizer
    scheduler: Any
    progress: Progress
    extras: Extras
    average: MovingAverage | None = None
    ahead: EncodingAhead | None = None

    def feature_caches(self) -> dict[str, FeatureCache | None]:
        """The vision features that are kept in this process, by whose tower they are of."""
        several = self.teacher.teachers if isinstance(self.teacher, RoutedTeacher) else [self.teacher]
        local = [teacher.model for teacher in several if isinstance(teacher, LocalTeacher)]
        named = {"student": self.student} | {f"teacher{number or ''}": model for number, model in enumerate(local)}
        return {name: model.policy.feature_cache for name, model in named.items()}

    def encode(self, samples: Sequence[VisualSample]) -> tuple[list[int], list[Prompt]]:
        """This process's share of a step: places in `samples`, and prompts. Samples that cannot be encoded are counted
        and shown, and DataError if none can."""
        keys, prompts, reasons = encode_share(self.ahead or self.student.encoder, samples)
        for reason in reasons:
            tqdm.write(f"skipped {reason}")
        self.progress.skipped_prompts += len(reasons)
        if len(reasons) == len(samples):
            raise DataError(
                f"none of the {len(samples)} prompts of step {self.progress.step} can be encoded: {reasons[0]}"
            )
        return keys, prompts


def load(config: TrainConfig) -> Parts:
    """Load data and models and check that they fit; nothing is written yet. Raises ValueError with one line."""
    progress = Progress()  # its clock runs from here
    check_trackers(config.trackers)
    require_engine(config.rollout.engine)
    require_overlap(config.objective, config.rollout.overlap, shard_teacher=config.distributed.shard_teacher)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    pick_device(config.student.device, field="student.device")
    pick_device(config.teacher.device, field="teacher.device")
    room = budget(config)
    require_memory(room)
    splits = load_splits(config)
    student = load_student(config)
    learner = spread_student(config, student)
    with whole_weights(student.policy):
        teacher, pair = checked_teacher(config, student, splits.train)
    require_possible(
        config.objective,
        teacher,
        splits.train,
        shard_teacher=config.distributed.shard_teacher,
        processes=distributed.size(),
    )
    optim = config.optim
    extras = Extras(config.objective, student, teacher, optim.rows_at_once, load_reference(config))
    optimizer = build_optimizer(
        student.policy,
        lr=optim.lr,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        master=optim.master == "float32",
    )
    updates = config.steps * optim.updates_per_batch
    scheduler = build_scheduler(
        optimizer,
        name=optim.schedule,
        warmup_updates=optim.warmup_updates,
        updates=updates,
        min_lr_ratio=optim.min_lr_ratio,
    )
    decay = optim.ema_decay
    average = MovingAverage(student.policy.model, optimizer, decay=decay) if decay else None
    some, _ = student.encoder.encode_all(splits.train[:8])
    pair = replace(pair, results=(*require_memory(room.with_prompts(some)), *pair.results))
    ahead = EncodingAhead(student.encoder, config.images.workers) if config.images.workers else None
    return Parts(student, learner, teacher, splits, pair, optimizer, scheduler, progress, extras, average, ahead)


def advice(config: TrainConfig) -> list[str]:
    """What is allowed and probably not meant."""
    own_student = not config.student.path.startswith("zoo:")
    notes = []
    if own_student and config.optim.lr >= EMBEDDED.optim.lr:
        notes.append(
            f"note: lr {config.optim.lr} and {config.rollout.max_new_tokens} tokens an answer suit the embedded "
            "student; for a real one start from a preset such as qwen2.5-vl-3b"
        )
    if not own_student and config.data.path is not None:
        notes.append("note: the embedded student knows its own benchmark alone; other rows only show the machinery")
    if own_student and config.data.path is None:
        notes.append("note: there is no --data.path, so training is on the embedded benchmark")
    return notes


def load_splits(config: TrainConfig) -> Splits:
    data = config.data
    if data.path is None:
        if data.test_path is not None or data.limit is not None:
            raise ConfigError("data.test_path and data.limit need data.path: the embedded benchmark has its own splits")
        return embedded_splits(validation_rows=data.validation_rows, test_rows=data.test_rows)
    return file_splits(
        data.path,
        test_path=data.test_path,
        validation_rows=data.validation_rows,
        test_rows=data.test_rows,
        min_rows=config.prompts_per_step,
        limit=data.limit,
        allow_url=config.images.allow_url,
        require_image=data.require_image,
        seed=config.seed,
    )


def open_run(config: TrainConfig, *, resume: bool) -> None:
    """Claim a new run's directory, or write a resumed run's settings (its number of steps may have changed)."""
    if resume:
        saved = checkpoint.checkpoints(config.run_dir / rundir.CHECKPOINTS_DIR)
        done = checkpoint.step_of(saved[-1]) if saved else 0
        if config.steps < done:
            raise ConfigError(f"steps is {config.steps}: {config.run_dir} has done {done} already")
    else:
        rundir.claim(config.run_dir, overwrite=config.overwrite)
    # `overwrite` is no setting of the run: a --config of this file must not delete the run that lies there.
    write_config(replace(config, overwrite=False), config.run_dir / rundir.CONFIG_FILE)


def restore(config: TrainConfig, parts: Parts) -> None:
    """Go on from the newest checkpoint, if there is one."""
    distributed.barrier()  # the run directory is claimed
    saved = checkpoint.checkpoints(config.run_dir / rundir.CHECKPOINTS_DIR)
    if not saved:
        return
    state = checkpoint.load_checkpoint(
        saved[-1],
        model=parts.student.policy.model,
        optimizer=parts.optimizer,
        scheduler=parts.scheduler,
        average=parts.average,
    )
    parts.progress.restore(state)
    print(f"resuming after step {parts.progress.step} from {saved[-1]}")
