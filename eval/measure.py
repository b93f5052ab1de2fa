"""A whole evaluation with models: problems, answers of model and baseline, speed; then the scoring that needs none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from eval.benches import find_bench
from eval.config import EvalConfig, EvalError, choose
from eval.finish import BASELINE_DIR, RUN_FILE, Answers, check_exports, read_run
from eval.generate import Generator, plan, remaining
from eval.identity import same_directory
from eval.pace import Speed, measure_run_speed
from eval.responses import reclaim, replace_responses
from eval.score import grade
from eval.tasks import Model, Task, load_task
from eval.types import Response
from reopold_vl.runlog import replace_text
from reopold_vl.stop import StopSignals


def measure(config: EvalConfig, *, command: str) -> tuple[list[Answers], Speed | None]:
    """The answers of model and baseline to every benchmark, stored under `config.directory`, and the pair's speed.

    Raises EvalError, BenchmarkError or ModelError for what cannot be run, and `Stopped` when a signal ends it; what
    had been answered is then on the disk.
    """
    benches = [find_bench(name) for name in config.benches]
    for bench in benches:
        choose(config.prompt or next(iter(bench.prompts)), bench.prompts, f"prompt of {bench.name}")
        choose(config.scorer, bench.graders, f"scorer of {bench.name}")
    check_exports(config, [bench.name for bench in benches])
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    paths = {"model": config.model_path, "baseline": config.baseline_path}
    models = {role: Model(path, config) for role, path in paths.items() if path is not None}
    if "baseline" in models and same_directory(models["model"].path, models["baseline"].path):
        print(f"note: model and baseline are the same ({config.model_path}): any difference is noise")
    tasks = [load_task(bench, config, models["model"].dtype) for bench in benches]
    directory = config.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvalError(f"output_dir {directory} cannot be created: {error.strerror}") from None
    _write_run(directory / RUN_FILE, config, tasks, models, command)
    responses: dict[str, list[list[Response]]] = {}
    with StopSignals().installed() as stop:
        for role, model in models.items():
            place = directory if role == "model" else directory / BASELINE_DIR
            place.mkdir(exist_ok=True)
            responses[role] = [_collect(task, model, place, config, stop) for task in tasks]
            model.release()  # the baseline may need all of the memory
        speed = None
        if config.speed:
            speed = measure_run_speed(tasks[0], models, directory, config)
    _write_run(directory / RUN_FILE, config, tasks, models, command)  # with what only loaded models tell
    names = {path.stem.removeprefix("responses_") for path in directory.glob("responses_*.jsonl")}
    if others := sorted(names - {task.bench.name for task in tasks}):
        print(f"{directory} also holds answers to {', '.join(others)}: --score {directory} reports on all of them")
    baseline = responses.get("baseline", [None] * len(tasks))
    info = read_run(directory)["benches"]
    answers = [
        Answers(task.bench, ours, theirs, info[task.bench.name])
        for task, ours, theirs in zip(tasks, responses["model"], baseline, strict=True)
    ]
    return answers, speed


def _write_run(path: Path, config: EvalConfig, tasks: Sequence[Task], models: dict[str, Model], command: str) -> None:
    """run.json: how the answers that lie beside it were made. Benchmarks of earlier runs stay in it."""
    earlier = read_run(path.parent).get("benches", {})
    benches = {
        task.bench.name: {
            "split": task.loaded.split,
            "origin": task.loaded.origin,
            "revision": task.loaded.revision,
            "problems": len(task.loaded.problems),
            "failed_rows": [str(row) for row in task.loaded.failed],
            "notes": list(task.loaded.notes),
            "limit": config.limit,
            "prompt": task.prompt,
            "n": config.n,
            "settings": vars(task.settings),
            "paths": {role: model.path for role, model in models.items()},
            "identity": {role: model.identity for role, model in models.items()},
            "parameters": _parameters(models, earlier.get(task.bench.name, {})),
        }
        for task in tasks
    }
    run = {"command": command, "batch_size": config.batch_size, "device": next(iter(models.values())).place}
    run["versions"] = {"torch": torch.__version__, "transformers": version("transformers")}
    replace_text(path, json.dumps({**run, "benches": {**earlier, **benches}}, indent=2, ensure_ascii=False) + "\n")


def _parameters(models: dict[str, Model], earlier: dict) -> dict[str, int | None]:
    """Numbers of parameters: of loaded models their own, of others as an earlier run wrote it down."""
    same = {
        role: earlier.get("parameters", {}).get(role)
        for role, model in models.items()
        if earlier.get("identity", {}).get(role) == model.identity
    }
    return {role: model.parameters or same.get(role) for role, model in models.items()}


def _collect(task: Task, model: Model, directory: Path, config: EvalConfig, stop: StopSignals) -> list[Response]:
    """All responses of one model to one benchmark, in the benchmark's order: the stored ones and the missing."""
    path = directory / f"responses_{task.bench.name}.jsonl"
    if not config.resume:
        path.unlink(missing_ok=True)
        path.with_name(f"unused_{task.bench.name}.jsonl").unlink(missing_ok=True)
    jobs = task.jobs(model.identity)
    done, notes = reclaim(path, [job.key for job in jobs])
    for note in notes:
        print(f"note: {note}")
    if done:
        print(f"{task.bench.name}, {model.path}: {len(done)} of {len(jobs)} answers were stored already")
    if len(done) < len(jobs):
        batches = remaining(plan(jobs, model.loaded.encoder, batch_size=config.batch_size), done)
        with _progress(task, model, config, len(jobs), list(done.values())) as (advance, tell):
            generator = Generator(
                model.loaded, bench=task.bench.name, settings=task.settings, batch_size=config.batch_size, tell=tell
            )
            for responses in generator.run(batches, path, done=dict(done), stop=stop):
                done |= {response.key: response for response in responses}
                advance(responses)
    ordered = [done[job.key] for job in jobs]
    if [response.key for response in ordered] != list(done):
        with stop.deferred():
            replace_responses(path, ordered)
    return ordered


@contextlib.contextmanager
def _progress(
    task: Task, model: Model, config: EvalConfig, total: int, stored: list[Response]
) -> Iterator[tuple[Callable[[list[Response]], None], Callable[[str], None]]]:
    """A bar with answers a second and the accuracy so far; (advance, print a line above it)."""
    right = scored = 0

    def rate(responses: list[Response]) -> str:
        nonlocal right, scored
        graded = grade(task.bench, responses, config.scorer)
        right += sum(item.correct for item in graded)
        scored += sum(item.verdict is not None for item in graded)
        return f"accuracy {right / scored:.1%}" if scored else ""

    unit = "problem" if task.n == 1 else "answer"
    title = f"{task.bench.name}, {model.path}"
    rate(stored)
    with tqdm(total=total, initial=len(stored), desc=title, unit=unit, dynamic_ncols=True) as bar:

        def advance(responses: list[Response]) -> None:
            bar.set_postfix_str(rate(responses), refresh=False)
            bar.update(len(responses))

        yield advance, bar.write
