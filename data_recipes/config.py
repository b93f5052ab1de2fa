"""The settings of a build: frozen dataclasses that become flags, and that the manifest records."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from data_recipes.types import RecipeError
from reopold_vl import cli_errors

NO_SAMPLE = ("unreadable", "image_not_found", "no_response")
"""Why a row is no sample at all; nothing of it can be put back."""

FILTERS = (
    *NO_SAMPLE,
    "missing_image",
    "missing_answer",
    "image_size",
    "prompt_length",
    "contamination",
    "duplicate_question",
    "duplicate_image",
    "pass_rate",
    "share_source",
    "share_answer_type",
)
"""In the order in which a row meets them; the first one that objects is the one that is counted."""


require = partial(cli_errors.require, RecipeError)


@dataclass(frozen=True)
class Filters:
    """What a row must be to stay. 0 (or off) turns a filter off; what was taken out is kept under rejected/."""

    require_image: bool = True
    """Take out rows without an image."""

    require_answer: bool = True
    """Take out rows without an answer."""

    min_side: int = 8
    """Shortest side of an image, in pixels."""

    max_pixels: int = 50_000_000
    """Largest area of an image, in pixels."""

    max_aspect: float = 200.0
    """Longest side over shortest side."""

    max_prompt_chars: int = 8000
    """Longest prompt (question and the choices it does not spell out), in characters."""

    max_prompt_tokens: int = 0
    """Longest prompt in tokens of --processor, image tokens included."""

    processor: str | None = None
    """Model directory or Hub id whose tokenizer and image processor count tokens (needed by --max-prompt-tokens)."""

    processor_max_pixels: int = 1_003_520
    """Pixel budget of an image while tokens are counted (reopold_vl.train's --images.max-pixels)."""

    duplicate_question: Literal["off", "exact", "near"] = "near"
    """Rows that repeat question and image of an earlier row; near: also where the image was re-encoded or resized,
    if the answer is the same."""

    duplicate_image: Literal["off", "exact", "near"] = "off"
    """Rows that repeat the image of an earlier row, whatever they ask. Off, because several questions about one chart
    are no duplicates."""

    contamination: bool = True
    """Take out rows that a benchmark of `eval` contains too."""

    benchmarks: tuple[str, ...] = ("auto",)
    """What to compare with: NAME (from the Hub or its cache), NAME=PATH (local data), several with commas or blanks;
    auto is the embedded benchmark and every one whose data lies in the Hub cache."""

    contamination_index: Path | None = None
    """Index file of the benchmarks: used if it is there, otherwise built from --benchmarks and saved."""

    contamination_text: bool = True
    """Count a long and specific question by itself, without the image."""

    pass_rate_model: str | None = None
    """Keep prompts that this model solves sometimes (a directory, a Hub id, zoo:student); adds measured_pass_rate."""

    pass_rate_samples: int = 8
    """Answers sampled a prompt."""

    pass_rate_min: float = 0.01
    """Lowest share of right answers that stays."""

    pass_rate_max: float = 0.99
    """Highest share of right answers that stays."""

    max_share_source: float = 1.0
    """Largest share of the rows that one source may have (1: no limit)."""

    max_share_answer_type: float = 1.0
    """Largest share of the rows that one answer type may have (1: no limit)."""

    def __post_init__(self) -> None:
        for name in ("min_side", "max_pixels", "max_prompt_chars", "max_prompt_tokens"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 (off) or more")
        require(self.max_aspect == 0 or self.max_aspect >= 1, "max_aspect", self.max_aspect, "0 (off), or 1 or more")
        require(self.pass_rate_samples >= 1, "pass_rate_samples", self.pass_rate_samples, "1 or more")
        for name in ("max_share_source", "max_share_answer_type"):
            require(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0, at most 1")
        low, high = self.pass_rate_min, self.pass_rate_max
        require(0 <= low <= high <= 1, "pass_rate_min..pass_rate_max", f"{low}..{high}", "0 <= min <= max <= 1")
        named = self.max_prompt_tokens == 0 or self.processor is not None
        require(named, "processor", None, "a model directory or id when --max-prompt-tokens is set")

    def without(self, name: str) -> Self:
        """These filters with one turned off; raises RecipeError for a name that is none or cannot be turned off."""
        off: dict[str, dict[str, Any]] = {
            "missing_image": {"require_image": False},
            "missing_answer": {"require_answer": False},
            "image_size": {"min_side": 0, "max_pixels": 0, "max_aspect": 0.0},
            "prompt_length": {"max_prompt_chars": 0, "max_prompt_tokens": 0},
            "contamination": {"contamination": False},
            "duplicate_question": {"duplicate_question": "off"},
            "duplicate_image": {"duplicate_image": "off"},
            "pass_rate": {"pass_rate_model": None},
            "share_source": {"max_share_source": 1.0},
            "share_answer_type": {"max_share_answer_type": 1.0},
        }
        lost = f"of {', '.join(NO_SAMPLE)} rows there is no sample"
        require(name in off, "restore", name, f"{', '.join(off)} ({lost})")
        return dataclasses.replace(self, **off[name])


@dataclass(frozen=True)
class Reading:
    """What to read, how much of it, where to put it."""

    output_dir: Path | None = None
    """Directory of the data set; by default data/ and the recipe's name."""

    list: bool = False
    """List the recipes and leave."""

    mix: Path | None = None
    """A yaml file that names several recipes with weights, in place of a recipe."""

    restore: str | None = None
    """Put the rows that this filter took out of --output-dir back, and leave: the data set is built again from what
    lies in that directory, with the filter turned off."""

    split: str | None = None
    """Split to read; by default the recipe's first."""

    data_path: Path | None = None
    """Read local files in place of the Hub: a file or a directory."""

    map: tuple[str, ...] = ()
    """Column renames as THEIRS=OURS, such as --map problem=question gold=answer."""

    limit: int | None = None
    """Read at most this many rows."""

    seed: int = 0
    """Seed of everything that is drawn: computed rows, mixtures, shares, the contact sheet."""

    num_proc: int = 1
    """Processes that decode and check images; the output does not depend on it."""

    resume: bool = True
    """Go on with an interrupted build of the same settings; --no-resume starts over, also on a finished one."""

    i_know: bool = False
    """Build even where the licence forbids training; the manifest records it."""

    shard_rows: int = 2000
    """Rows of a shard, about; a kill costs no more than the shard in work."""

    shard_megabytes: int = 256
    """Size of a shard, about."""

    def __post_init__(self) -> None:
        for name in ("num_proc", "shard_rows", "shard_megabytes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "1 or more")
        for item in self.map:
            theirs, equals, ours = item.partition("=")
            require(bool(theirs and equals and ours), "map", item, "THEIRS=OURS")

    @property
    def mapping(self) -> dict[str, str]:
        """Column renames, theirs -> ours."""
        return dict(item.split("=", 1) for item in self.map)


@dataclass(frozen=True)
class Teaching:
    """Sampling a teacher's responses to the rows, for supervised training and cold starts."""

    teacher: str | None = None
    """Model that answers every prompt (a directory, a Hub id, zoo:teacher); right answers become `response`."""

    teacher_samples: int = 4
    """Answers sampled a prompt."""

    teacher_keep: int = 1
    """Right and different answers of a prompt that are kept, each a row of its own."""

    teacher_temperature: float = 1.0
    """Sampling temperature; 0 is greedy (then --teacher-samples 1)."""

    teacher_max_new_tokens: int = 2048
    """Longest answer in tokens; longer ones are cut off and not kept."""

    def __post_init__(self) -> None:
        for name in ("teacher_samples", "teacher_keep", "teacher_max_new_tokens"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        degrees, samples = self.teacher_temperature, self.teacher_samples
        require(0 <= degrees < math.inf, "teacher_temperature", degrees, "0 (greedy) or more")
        require(degrees > 0 or samples == 1, "teacher_samples", samples, "1 at --teacher-temperature 0: all are alike")


@dataclass(frozen=True)
class BuildConfig(Filters, Teaching, Reading):
    """One build: what is read, and what a row must be to stay."""

    def __post_init__(self) -> None:
        Reading.__post_init__(self)
        Teaching.__post_init__(self)
        Filters.__post_init__(self)


def settings_of(config: BuildConfig) -> dict[str, Any]:
    """The settings that decide what comes out, as JSON values: not where it goes, nor how many processes make it."""
    values = dataclasses.asdict(config)
    for name in ("output_dir", "num_proc", "resume", "list", "restore"):
        del values[name]
    return _plain(values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
