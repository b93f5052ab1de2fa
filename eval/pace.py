"""The speed of a run: measured once, kept in speed.json, read back without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eval.speed_types import AccuracyTime, PairSpeed, SpeedReport
from reopold_vl.runlog import replace_text

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.tasks import Model, Task

SPEED_FILE = "speed.json"

Speed = PairSpeed | SpeedReport
"""Of model (student) and baseline (teacher), or of a model alone."""


def measure_run_speed(task: Task, models: dict[str, Model], directory: Path, config: EvalConfig) -> Speed | None:
    """The speed on the first problems of one benchmark; from `directory` where it was measured under the same
    conditions. None, with a line on the terminal, where it cannot be measured."""
    import torch

    from eval.matched import Pair, Votes, measure_pair
    from eval.score import verdict_on
    from eval.speed import measure_speed
    from eval.timing import DEFAULT, EMBEDDED

    problems = task.loaded.problems[: config.speed_problems]
    usual = EMBEDDED if task.bench.name == "embedded" else DEFAULT
    settings = replace(
        usual,
        batch_sizes=tuple(sorted({1, min(config.batch_size, len(problems))})),
        max_new_tokens=task.settings.max_new_tokens,
        fixed_tokens=max(2, min(usual.fixed_tokens, task.settings.max_new_tokens)),
        problems=len(problems),
    )
    key = _key(task, [model.identity for model in models.values()], settings.batch_sizes, config)
    path = directory / SPEED_FILE
    stored = _stored(path)
    if config.resume and stored is not None and stored[0] == key:
        print(f"speed: as measured before ({path})")
        return stored[1]
    print(f"measuring speed on {len(problems)} problems of {task.bench.name} (--no-speed leaves it out)")
    write = task.bench.prompts[task.prompt]
    grade = partial(verdict_on, grader=task.bench.graders[config.scorer], scorer=config.scorer)
    try:
        loaded = [model.loaded for model in models.values()]
        if len(loaded) == 2:
            pair = Pair(loaded[0], loaded[1], problems, write, grade)
            speed: Speed = measure_pair(pair, settings=settings, votes=Votes(seed=config.seed))
        else:
            speed = measure_speed(loaded[0], problems, write, grade, settings=settings)
    except torch.OutOfMemoryError as error:
        print(f"speed is not measured: out of memory ({str(error).splitlines()[0]}); try a smaller --batch-size")
        return None
    except ValueError as error:  # no room for both models, no problem can be shown, or they cannot be compared
        print(f"speed is not measured: {error}")
        return None
    replace_text(path, json.dumps({"key": key, "speed": asdict(speed)}, indent=2) + "\n")
    return speed


def read_speed(directory: Path) -> Speed | None:
    """What was measured in an earlier run there; None without it."""
    stored = _stored(directory / SPEED_FILE)
    return stored[1] if stored else None


def points(speed: Speed) -> Sequence[AccuracyTime]:
    """Accuracy and time of each way to answer that was measured."""
    if isinstance(speed, PairSpeed):
        return speed.matched.points if speed.matched else ()
    return ()


def summary_lines(speed: Speed) -> list[str]:
    """What the terminal says of it."""
    reports = [speed.student, speed.teacher] if isinstance(speed, PairSpeed) else [speed]
    first = reports[0]
    lines = [f"speed on {first.device}, {first.dtype}, {first.threads} thread(s), medians of {first.repeats} repeats"]
    for report in reports:
        for batch in report.batches:
            correct = f", {batch.correct_per_second:.3g} right answers/s" if batch.correct_per_second else ""
            lines.append(
                f"  {report.model}, batch {batch.batch_size}: {1000 * batch.seconds_per_problem.median:.3g} ms "
                f"a problem, first token {1000 * batch.time_to_first_token.median:.3g} ms, each further "
                f"{1000 * batch.time_per_output_token.median:.3g} ms, {batch.tokens_per_second.median:.0f} tokens/s, "
                f"{batch.mean_output_tokens:.1f} tokens a problem{correct}"
            )
    if not isinstance(speed, PairSpeed):
        return lines
    ups, matched = speed.speed_ups, speed.matched
    for name, ratios in (("at fixed output length", ups.fixed_length), ("per problem", ups.per_problem)):
        told = ", ".join(f"{ratio:.2f}x (batch {size})" for size, ratio in ratios.items())
        lines.append(f"  speed-up {name}: {told}")
    if matched is not None:
        ratio = f"{matched.speed_up:.2f}x" if matched.speed_up is not None else "none"
        lines.append(f"  speed-up at matched accuracy: {ratio}; {matched.outcome} ({matched.problems} problems)")
    lines.append(f"  parameters {ups.parameters:.2f}x, FLOPs per problem {ups.flops:.2f}x")
    return lines


def _key(task: Task, identities: Sequence[str], sizes: Sequence[int], config: EvalConfig) -> str:
    import torch

    ids = [problem.id for problem in task.loaded.problems[: config.speed_problems]]
    parts = [identities, list(sizes), vars(task.settings), task.bench.name, task.prompt, config.scorer, ids]
    parts += [config.device, torch.get_num_threads()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stored(path: Path) -> tuple[str, Speed] | None:
    from pydantic import TypeAdapter

    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        speed = record["speed"]
        kind = PairSpeed if "speed_ups" in speed else SpeedReport
        return str(record["key"]), TypeAdapter(kind).validate_python(speed)
    except (OSError, ValueError, KeyError, TypeError):  # none, half of one, or an older form: it is measured again
        return None
