"""What a run works on: a benchmark's problems in the words of a prompt, and the models that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from eval.benchmark import Benchmark
from eval.config import EvalConfig
from eval.generate import Job
from eval.identity import model_identity
from eval.load import LoadedProblems, load_problems
from eval.responses import GenerationSettings, images_hash, response_key
from reopold_vl.models import VisionLanguageModel, load_model, pick_device, pick_dtype


@dataclass(frozen=True)
class Task:
    """One benchmark of a run: its problems, in the words of one prompt, and how answers are generated."""

    bench: Benchmark
    loaded: LoadedProblems
    prompt: str
    settings: GenerationSettings
    n: int

    @cached_property
    def prompts(self) -> list[tuple[str, str]]:
        """Each problem's prompt and the hash of its images."""
        write = self.bench.prompts[self.prompt]
        return [(write(problem), images_hash(problem.images)) for problem in self.loaded.problems]

    def jobs(self, identity: str) -> list[Job]:
        """All answers to get from the model of this identity, in the order of problems and samples."""
        return [
            Job(problem, prompt, sample, self._key(problem.id, prompt, images, identity, sample))
            for problem, (prompt, images) in zip(self.loaded.problems, self.prompts, strict=True)
            for sample in range(self.n)
        ]

    def _key(self, problem_id: str, prompt: str, images: str, identity: str, sample: int) -> str:
        return response_key(
            bench=self.bench.name,
            problem_id=problem_id,
            prompt=prompt,
            images=images,
            settings=self.settings,
            model=identity,
            sample=sample,
        )


class Model:
    """A model that is loaded when it is first needed: a run whose answers are all stored needs none."""

    def __init__(self, path: str, config: EvalConfig) -> None:
        self.path = path
        self.config = config
        place = pick_device(config.device)
        self.place = str(place)
        self.dtype = pick_dtype(config.dtype, place)
        self.identity = model_identity(path, trust_remote_code=config.trust_remote_code)
        self.parameters: int | None = None
        self._loaded: VisionLanguageModel | None = None

    @property
    def loaded(self) -> VisionLanguageModel:
        if self._loaded is None:
            self._loaded = load_model(
                self.path,
                dtype=self.dtype,
                compute=self.dtype,
                device=self.place,
                trust_remote_code=self.config.trust_remote_code,
                min_pixels=self.config.min_pixels,
                max_pixels=self.config.max_pixels,
                max_prompt_tokens=self.config.max_prompt_tokens,
            )
            self.parameters = self._loaded.num_parameters
        return self._loaded

    def release(self) -> None:
        self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_task(bench: Benchmark, config: EvalConfig, dtype: str) -> Task:
    """The benchmark's problems, with a line on the terminal on where they come from and what failed."""
    loaded = load_problems(bench, split=config.split, data_path=config.data_path_of(bench.name), limit=config.limit)
    print(f"{bench.name}: {loaded.summary()}")
    for note in loaded.notes:
        print(f"{bench.name}: {note}")
    settings = GenerationSettings(
        max_new_tokens=config.max_new_tokens or bench.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        max_prompt_tokens=config.max_prompt_tokens,
        dtype=dtype,
    )
    return Task(bench, loaded, config.prompt or next(iter(bench.prompts)), settings, config.n)
