"""Speed on tiny models, with a clock that counts forward passes of the decoder: every time is known exactly."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny import MAX_PIXELS, MIN_PIXELS, load_tiny, mixed_samples, save_tiny

from benchmarks import eval_throughput
from eval.flops import count_generation, flop_line
from eval.matched import Pair, Votes, matched_accuracy, measure_pair, speed_ups
from eval.speed import measure_speed
from eval.speed_plot import plot_accuracy_time
from eval.speed_report import speed_markdown
from eval.speed_types import AccuracyTime, PairSpeed, Spread
from eval.timing import Clock, SpeedSettings
from eval.types import Problem, Response, Verdict
from reopold_vl.models import VisionLanguageModel, load_model

if TYPE_CHECKING:
    from reopold_vl.types import Prompt

PROBLEMS = [
    Problem(sample.id, sample.question, sample.answer, "text", images=sample.images) for sample in mixed_samples()
]


def ask(problem: Problem) -> str:
    return problem.question


def right(response: Response) -> Verdict:
    return Verdict(response.text, "rule", True)


class Forwards:
    """A clock that stands still but for the decoder's forward passes, one second each (CPU: half a second)."""

    def __init__(self, *models: VisionLanguageModel) -> None:
        self.count = 0
        decoders = [model.policy.model.base_model.language_model for model in models]
        self._handles = [decoder.register_forward_hook(self._tick) for decoder in decoders]

    def _tick(self, *_: Any) -> None:
        self.count += 1

    def settings(self, **changes: Any) -> SpeedSettings:
        clock = Clock(wall=lambda: float(self.count), cpu=lambda: self.count / 2)
        values = {"batch_sizes": (1, 2), "max_new_tokens": 6, "fixed_tokens": 5, "flop_problems": 1, "clock": clock}
        return SpeedSettings(**(values | changes))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionLanguageModel, VisionLanguageModel]:
    root = tmp_path_factory.mktemp("pair")
    student = load_tiny(save_tiny(root / "student", "qwen3_vl", seed=0))
    return student, load_tiny(save_tiny(root / "teacher", "qwen3_vl", seed=1, hidden=64, layers=4))


@pytest.fixture
def forwards(pair: tuple[VisionLanguageModel, VisionLanguageModel]) -> Iterator[Forwards]:
    counter = Forwards(*pair)
    yield counter
    counter.remove()


def test_times_are_those_of_the_forward_passes(
    pair: tuple[VisionLanguageModel, VisionLanguageModel], forwards: Forwards
) -> None:
    report = measure_speed(pair[0], PROBLEMS, ask, right, settings=forwards.settings(warmup=2))
    alone, batched = report.batches
    assert (alone.batch_size, alone.problems, batched.batch_size, batched.problems) == (1, 4, 2, 4)
    for speed in (alone, batched):
        assert speed.time_to_first_token.values == (1.0, 1.0, 1.0)  # one prefill a batch; warm-up is not in it
        assert speed.time_per_output_token.median == 1.0  # one forward pass for each token after the first
    assert alone.fixed_seconds_per_problem.median == 5 and batched.fixed_seconds_per_problem.median == 2.5
    assert batched.fixed_cpu_seconds_per_problem.median == 1.25
    assert alone.seconds_per_problem.median == alone.mean_output_tokens  # one token, one pass
    assert alone.tokens_per_second.median == 1.0
    assert report.accuracy == 1.0 and alone.correct_per_second == pytest.approx(1 / alone.seconds_per_problem.median)
    assert report.failed == 0 and report.parameters == pair[0].num_parameters
    assert report.parameter_bytes == 4 * report.parameters and report.dtype == "float32"
    assert alone.peak_memory_bytes is None or alone.peak_memory_bytes > report.parameter_bytes


def test_runs_of_fixed_length_do_not_stop_at_end_tokens(fresh_vlm: VisionLanguageModel) -> None:
    fresh_vlm.policy.model.generation_config.eos_token_id = list(range(300))  # nearly every token ends an answer
    forwards = Forwards(fresh_vlm)
    speed = measure_speed(fresh_vlm, PROBLEMS, ask, settings=forwards.settings()).batch(1)
    assert speed.mean_output_tokens < 2
    assert speed.fixed_seconds_per_problem.median == 5
    assert speed.correct_per_second is None


def test_problems_that_cannot_be_shown_are_counted(
    pair: tuple[VisionLanguageModel, VisionLanguageModel], forwards: Forwards
) -> None:
    broken = Problem("broken", "What?", "1", "text", images=("no-such-file.png",))
    report = measure_speed(pair[0], [broken, *PROBLEMS], ask, right, settings=forwards.settings(problems_alone=1))
    assert (report.failed, report.batch(1).problems, report.batch(2).problems) == (1, 1, 4)
    with pytest.raises(ValueError, match="none of 1 problems"):
        measure_speed(pair[0], [broken], ask, settings=forwards.settings())
    with pytest.raises(ValueError, match="measured are"):
        report.batch(7)


@pytest.mark.parametrize(
    ("field", "value"), [("batch_sizes", ()), ("batch_sizes", (0,)), ("repeats", 0), ("fixed_tokens", 1)]
)
def test_settings_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} is .*allowed"):
        SpeedSettings(**{field: value})


def test_flops_of_three_lengths_give_all_others(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        line = flop_line(vlm, prompt)
        assert line.prefill > line.step > line.growth > 0
        assert line.at(9) == count_generation(vlm, prompt, 9)


def test_flops_of_fused_attention_equal_those_of_plain_products(family: str, tiny_dirs: dict[str, Path]) -> None:
    counts = []
    for attention in ("sdpa", "eager"):
        model = load_model(
            str(tiny_dirs[family]),
            device="cpu",
            attention=attention,
            min_pixels=MIN_PIXELS,
            max_pixels=MAX_PIXELS,
        )
        counts.append(count_generation(model, model.encoder(mixed_samples()[0]), 4))
    assert counts[0] == counts[1]


def test_pair_has_three_speed_ups(pair: tuple[VisionLanguageModel, VisionLanguageModel], forwards: Forwards) -> None:
    votes = Votes(samples=(1, 3), temperature=1.0)
    found = measure_pair(Pair(*pair, PROBLEMS, ask, right), settings=forwards.settings(), votes=votes)
    assert found.teacher.flops.prefill > found.student.flops.prefill > 0
    assert found.speed_ups.flops > 1 and found.speed_ups.parameters > 1
    assert found.speed_ups.fixed_length == {1: 1.0, 2: 1.0}  # as many forward passes
    ours, theirs = found.student.batch(1), found.teacher.batch(1)
    assert found.speed_ups.per_problem[1] == theirs.mean_output_tokens / ours.mean_output_tokens
    assert found.matched is not None and len(found.matched.points) == 4
    assert json.loads(json.dumps(dataclasses.asdict(found)))["student"]["batches"][0]["batch_size"] == 1
    text = speed_markdown(found)
    for part in ("at fixed output length", "per problem as the models answer", "at matched accuracy", "FLOPs"):
        assert part in text
    left_out = PairSpeed(found.student, found.teacher, found.speed_ups, None)
    assert "at matched accuracy: not measured" in speed_markdown(left_out)
    with pytest.raises(ValueError, match="dtype is bfloat16"):
        speed_ups(dataclasses.replace(found.student, dtype="bfloat16"), found.teacher)


def test_matched_accuracy_tells_which_student_is_as_good(
    pair: tuple[VisionLanguageModel, VisionLanguageModel], forwards: Forwards
) -> None:
    student, teacher = pair
    settings = forwards.settings()

    def greedy(model: VisionLanguageModel) -> dict[str, str]:
        prompts = [model.encoder(sample) for sample in mixed_samples()]
        answers = model.engine(rows_at_once=2).generate(prompts, n=1, max_new_tokens=6, seed=0, temperature=0.0)
        texts = [model.tokenizer.decode(answer.response_ids, skip_special_tokens=True) for answer in answers]
        return {problem.id: text for problem, text in zip(PROBLEMS, texts, strict=True)}

    ours, theirs = greedy(student), greedy(teacher)
    assert all(ours[name] != theirs[name] for name in ours)

    def match(grade: Any) -> Any:
        votes = Votes(samples=(1, 3), temperature=9)
        return matched_accuracy(Pair(student, teacher, PROBLEMS, ask, grade), settings=settings, votes=votes)

    same = match(right)
    assert (same.samples, same.greedy) == (1, True) and "single greedy answer" in same.outcome
    assert same.speed_up == pytest.approx(
        same.points[0].seconds_per_problem.median / same.points[1].seconds_per_problem.median
    )
    voted = match(lambda answer: Verdict("x", "rule", answer.text != ours[answer.problem.id]))
    assert (voted.samples, voted.greedy) == (1, False) and "vote of 1" in voted.outcome
    never = match(lambda answer: Verdict(answer.text, "rule", answer.text == theirs[answer.problem.id]))
    assert (never.samples, never.speed_up) == (None, None) and "no number of samples" in never.outcome
    assert never.teacher_accuracy == 1.0
    hopeless = match(lambda answer: Verdict(answer.text, "rule", False))
    assert (hopeless.samples, hopeless.speed_up) == (None, None) and "no accuracy to match" in hopeless.outcome
    with pytest.raises(ValueError, match="temperature"):
        Votes(temperature=0)


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4, 1, 3, 2, 5]) == Spread(3, 2, 4, (4, 1, 3, 2, 5))
    assert Spread.of([1.0, 2.0]).low == 1.25
    with pytest.raises(ValueError, match="no measurements"):
        Spread.of([])


def test_throughput_is_measured_on_the_same_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "throughput.json"
    assert eval_throughput.main(["--num", "5", "--repeats", "1", "--batch-size", "3", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["problems"], found["identical"]) == (5, 1.0)
    assert found["ratio"] == pytest.approx(found["ours_per_cpu_second"] / found["plain_per_cpu_second"])
    assert "identical answers: 100.0%" in capsys.readouterr().out
    for argument, message in ((["--num", "0"], "--num is 0"), (["--model", "no/such/model"], "no such directory")):
        with pytest.raises(SystemExit):
            eval_throughput.main(argument)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("slowest", [0.02, 40.0])
def test_picture_of_accuracy_and_time(tmp_path: Path, slowest: float) -> None:
    times = itertools.cycle([0.011, slowest, 0.013])
    points = [
        AccuracyTime(model, k, k == 1, 0.5 + k / 100, (0.4, 0.7), Spread.of([next(times)] * 3), Spread.of([1.0]))
        for model in ("teacher", "student")
        for k in (1, 3, 5)
    ]
    path = plot_accuracy_time(points, tmp_path / "deep" / "speed.png", title="a pair")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert points[1].label == "teacher, maj@3" and points[0].label == "teacher, greedy"
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_accuracy_time([], tmp_path / "none.png")
