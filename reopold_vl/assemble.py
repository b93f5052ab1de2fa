"""From a configuration to the parts of a run. Config objects end here, in `outcome.py` and in `loop.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from reopold_vl import checkpoint, rundir
from reopold_vl.check import PairReport, check_pair
from reopold_vl.config import ConfigError, ModelConfig, TrainConfig
from reopold_vl.config_file import write_config
from reopold_vl.data import DataError
from reopold_vl.logprobs import TokenStats
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.optim import build_optimizer, build_scheduler
from reopold_vl.presets import EMBEDDED
from reopold_vl.progress import Progress
from reopold_vl.runlog import check_trackers
from reopold_vl.score import as_seen_by, sampled_tokens, score_tokens
from reopold_vl.splits import Splits, embedded_splits, file_splits
from reopold_vl.types import Prompt, Rollout, VisualSample


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of, once it is loaded."""

    student: VisionLanguageModel
    teacher: VisionLanguageModel
    splits: Splits
    pair: PairReport
    optimizer: torch.optim.Optimizer
    scheduler: Any
    progress: Progress

    def encode(self, samples: Sequence[VisualSample]) -> list[Prompt]:
        """Prompts of a step; samples that cannot be encoded are counted and shown, and DataError if none can."""
        prompts, reasons = self.student.encoder.encode_all(samples)
        for reason in reasons:
            tqdm.write(f"skipped {reason}")
        self.progress.skipped_prompts += len(reasons)
        if not prompts:
            raise DataError(
                f"none of the {len(samples)} prompts of step {self.progress.step} can be encoded: {reasons[0]}"
            )
        return prompts

    def views(self, rollouts: Sequence[Rollout], *, exact: bool, rows_at_once: int) -> tuple[TokenStats, TokenStats]:
        """The student's and the teacher's log-probs of the rollouts' tokens; an exact engine knows the student's."""
        seen = rollouts if self.pair.shared_prompts else as_seen_by(self.teacher, rollouts)
        teacher = score_tokens(self.teacher, seen, rows_at_once=rows_at_once)
        if exact:
            return sampled_tokens(rollouts), teacher
        return score_tokens(self.student, rollouts, rows_at_once=rows_at_once), teacher


def load(config: TrainConfig) -> Parts:
    """Load data and models and check that they fit; nothing is written yet. Raises ValueError with one line."""
    progress = Progress()  # its clock runs from here
    check_trackers(config.trackers)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    splits = load_splits(config)
    student, teacher = load_one(config, config.student), load_one(config, config.teacher)
    teacher.policy.requires_grad_(False)
    pair = check_pair(student, teacher, first_usable(student, splits.train))
    optim = config.optim
    optimizer = build_optimizer(student.policy, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
    updates = config.steps * optim.updates_per_batch
    scheduler = build_scheduler(optimizer, name=optim.schedule, warmup_updates=optim.warmup_updates, updates=updates)
    return Parts(student, teacher, splits, pair, optimizer, scheduler, progress)


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


def first_usable(model: VisionLanguageModel, samples: Sequence[VisualSample], num: int = 4) -> list[VisualSample]:
    """The first samples that become prompts: one damaged picture must not end a run. Raises DataError if none does."""
    prompts: list[Prompt] = []
    reasons: list[str] = []
    for index in range(len(samples)):
        encoded, why_not = model.encoder.encode_all([samples[index]])
        prompts += encoded
        reasons += why_not
        if len(prompts) == num:
            break
    if not prompts:
        raise DataError(f"none of the {len(samples)} rows to train on can be encoded: {reasons[0]}")
    return [prompt.sample for prompt in prompts]


def load_one(config: TrainConfig, model: ModelConfig) -> VisionLanguageModel:
    images = config.images
    return load_model(
        **asdict(model),
        min_pixels=images.min_pixels,
        max_pixels=images.max_pixels,
        max_prompt_tokens=config.rollout.max_prompt_tokens,
        allow_url=images.allow_url,
        instruction=config.data.instruction,
    )


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
    saved = checkpoint.checkpoints(config.run_dir / rundir.CHECKPOINTS_DIR)
    if not saved:
        return
    state = checkpoint.load_checkpoint(
        saved[-1], model=parts.student.policy.model, optimizer=parts.optimizer, scheduler=parts.scheduler
    )
    parts.progress.restore(state)
    print(f"resuming after step {parts.progress.step} from {saved[-1]}")
