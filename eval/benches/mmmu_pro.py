"""MMMU-Pro: 1,730 MMMU questions that need their image, with up to 10 options; or the whole question as a screenshot.

Source: https://huggingface.co/datasets/MMMU/MMMU_Pro, configurations "standard (10 options)", "standard (4 options)"
and "vision"; https://github.com/MMMU-Benchmark/MMMU (official rule). Paper: Yue et al. 2024, arXiv:2409.02813. Licence:
Apache-2.0. The paper's overall figure is the mean of the standard (10 options) and the vision accuracy.

Traps: as in MMMU. Rows of "vision" have no question: it stands in the image with its options, and the prompt says only
how to answer. The official rule looks behind the last "Answer:" first, and guesses where it finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from eval.benches import common, mmmu, mmmu_rules, vqa
from eval.benchmark import Benchmark, Row, Source
from eval.types import Problem, Verdict

COT_VISION = (
    "Write out the multiple-choice question in the image and then solve it. The last line of your response should be "
    "of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step "
    "before answering."
)
DIRECT_STANDARD = "Answer with the option letter from the given choices directly."
DIRECT_VISION = (
    "Answer with the option letter from the given choices directly. The last line of your response should be of the "
    "following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options."
)
STYLE = "{letter}. {choice}"


def read(row: Row) -> Problem:
    """One row of a standard configuration."""
    question, options = common.required(row, "question"), vqa.literal_list(row, "options")
    images, loose = mmmu.interleaved(row, question, options)
    return _problem(row, question, options, images, loose)


def read_vision(row: Row) -> Problem:
    """One row of the configuration "vision"; `image` holds the question."""
    return _problem(row, "", vqa.literal_list(row, "options"), common.images(row, "image"), 0)


def _problem(row: Row, question: str, options: tuple[str, ...], images: tuple, loose: int) -> Problem:
    return Problem(
        id=common.required(row, "id"),
        question=question,
        answer=vqa.checked_letter(common.required(row, "answer"), len(options)),
        kind="choice",
        choices=options,
        tags=mmmu.subject_tags(row),
        extra={"loose_images": loose},
        images=images,
    )


def alone(text: str) -> Callable[[Problem], str]:
    """A prompt that says nothing of the question, which stands in the image."""
    return lambda problem: text


def grade_official(problem: Problem, response: str) -> Verdict:
    """The repository's parsing and comparison; see mmmu_rules."""
    return mmmu_rules.choose(problem, response, answer_line=True)


def _standard(name: str, options: int) -> Benchmark:
    return Benchmark(
        name=name,
        title=f"MMMU-Pro, standard ({options} options)",
        licence="Apache-2.0",
        citation="Yue et al. 2024, arXiv:2409.02813",
        sources=(Source("MMMU/MMMU_Pro", f"standard ({options} options)"),),
        splits=("test",),
        columns=(("id",), ("question",), ("options",), ("answer",), ("image_1",)),
        read=read,
        prompts={
            "cot": mmmu.prompt(STYLE, mmmu.COT_LETTER, mmmu.COT_LETTER),
            "direct": mmmu.prompt(STYLE, DIRECT_STANDARD, DIRECT_STANDARD),
            "think": mmmu.prompt(STYLE, common.THINK_TAGS, common.THINK_TAGS),
        },
        graders={"strict": vqa.grade_letter, "official": grade_official},
        metrics=mmmu.metrics,
    )


BENCH = _standard("mmmu_pro", 10)
FOUR_OPTIONS = _standard("mmmu_pro_4", 4)
VISION = Benchmark(
    name="mmmu_pro_vision",
    title="MMMU-Pro, vision",
    licence="Apache-2.0",
    citation="Yue et al. 2024, arXiv:2409.02813",
    sources=(Source("MMMU/MMMU_Pro", "vision"),),
    splits=("test",),
    columns=(("id",), ("image",), ("options",), ("answer",)),
    read=read_vision,
    prompts={"cot": alone(COT_VISION), "direct": alone(DIRECT_VISION), "think": alone(common.THINK_TAGS)},
    graders={"strict": vqa.grade_letter, "official": grade_official},
    metrics=mmmu.metrics,
)
