"""The teacher scores while the student samples: that they do overlap, and that nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import test_golden
import torch
from tiny import load_tiny, random_rollouts

from reopold_vl import loop
from reopold_vl.ask import Asking
from reopold_vl.config import ConfigError, RolloutConfig, TrainConfig
from reopold_vl.config.rollout import VLLMConfig
from reopold_vl.learn import learn
from reopold_vl.models import VisionLanguageModel
from reopold_vl.needs import require_overlap
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.prefetch import EncodingAhead
from reopold_vl.progress import Stopwatch
from reopold_vl.prompts import PromptEncoder
from reopold_vl.rollout.build import build_engine
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.score import score_tokens
from reopold_vl.shares import encode_share
from reopold_vl.splits import EmbeddedTrain, Splits
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import joined_scores
from reopold_vl.types import Prompt, Rollout, TeacherScores, VisualSample

WAIT = 60  # seconds; what does not overlap would wait so long and fail


class Diary:
    """What a run did, in order, as (what, number); a teacher that waits like a slow server for what should come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, waits: dict[int, tuple[str, int]]) -> None:
        self.entries: list[tuple[str, int]] = []
        self.threads: set[str] = set()
        self.taught: list[tuple[list[Rollout], torch.Tensor, torch.Tensor]] = []
        self.weights: list[dict[str, torch.Tensor]] = []  # at each sampling
        self.changed = threading.Condition()
        self.training = False  # the check of the pair asks both models as well
        plain_score, plain_generate = LocalTeacher.score, HFEngine.generate

        def score(teacher: LocalTeacher, rollouts: Sequence[Rollout]) -> TeacherScores:
            if not self.training:
                return plain_score(teacher, rollouts)
            self.threads.add(threading.current_thread().name)
            number = self.note("score")
            if number in waits:
                with self.changed:
                    assert self.changed.wait_for(lambda: waits[number] in self.entries, WAIT), f"score {number}"
            # A prompt at a time, as a server does it: the rounding is the same however the step is cut.
            groups = [[row for row, one in enumerate(rollouts) if one.prompt is of] for of in prompts_of(rollouts)]
            return joined_scores([(rows, plain_score(teacher, [rollouts[row] for row in rows])) for rows in groups])

        def generate(engine: HFEngine, *args: Any, **settings: Any) -> list[Rollout]:
            if self.training:
                state = engine.policy.state_dict()
                self.weights.append({name: weight.clone() for name, weight in state.items()})
                self.note("sample")
            return plain_generate(engine, *args, **settings)

        def built(*args: Any, **settings: Any) -> Any:
            self.training = True
            return build_engine(*args, **settings)

        def learned(learner: Any, rollouts: list[Rollout], batch: Any, *args: Any, **settings: Any) -> Any:
            self.note("learn")
            self.taught.append((rollouts, batch.old_logprobs, batch.teacher_logprobs))
            return learn(learner, rollouts, batch, *args, **settings)

        monkeypatch.setattr(LocalTeacher, "score", score)
        monkeypatch.setattr(HFEngine, "generate", generate)
        monkeypatch.setattr(loop, "build_engine", built)
        monkeypatch.setattr(loop, "learn", learned)

    def note(self, what: str) -> int:
        with self.changed:
            number = sum(name == what for name, _ in self.entries)
            self.entries.append((what, number))
            self.changed.notify_all()
        return number


def prompts_of(rollouts: Sequence[Rollout]) -> list[Prompt]:
    return list({id(rollout.prompt): rollout.prompt for rollout in rollouts}.values())


Ran = tuple[Diary, list[dict[str, float]]]


def run(root: Path, overlap: str, waits: dict[int, tuple[str, int]]) -> Ran:
    """The golden run (4 steps of 4 prompts with 4 answers) in parts of two prompts."""
    with pytest.MonkeyPatch.context() as patch:
        diary = Diary(patch, waits=waits)
        flags = (*test_golden.OBJECTIVES["reopold"], "--rollout.rows-at-once", "8", "--rollout.overlap", overlap)
        patch.setitem(test_golden.OBJECTIVES, "reopold", flags)
        root.mkdir()
        return diary, test_golden.golden_run("reopold", root)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Without overlap."""
    return run(tmp_path_factory.mktemp("plain") / "none", "none", {})


def test_parts_are_scored_while_the_next_is_sampled(tmp_path: Path, plain: Ran) -> None:
    """A step's first part is not scored before the second is being sampled; the run is the same, bit for bit."""
    before, expected = plain
    waits = {2 * step: ("sample", 2 * step + 1) for step in range(4)}
    diary, found = run(tmp_path / "parts", "parts", waits)
    assert found == expected
    assert before.threads == {threading.main_thread().name} and diary.threads == {"teacher_0"}
    for (ours, *mine), (theirs, *other) in zip(diary.taught, before.taught, strict=True):
        assert all(torch.equal(one.response_ids, two.response_ids) for one, two in zip(ours, theirs, strict=True))
        assert all(torch.equal(one, two) for one, two in zip(mine, other, strict=True))
    kinds = [[name for name, _ in each.entries if name != "sample"] for each in (before, diary)]
    assert kinds == [["score", "learn"] * 4, ["score", "score", "learn"] * 4]


def test_the_next_step_is_sampled_while_this_one_is_scored(tmp_path: Path, plain: Ran) -> None:
    """Step 1 is drawn with the weights before the first update, and scored while that is made; and so on."""
    _, expected = plain
    # Parts 0 and 1 are step 0, parts 2 and 3 step 1, and so on.
    waits = {0: ("sample", 2), 1: ("sample", 3)} | {2 * step: ("learn", step - 1) for step in range(1, 4)}
    diary, found = run(tmp_path / "step", "step", waits)
    order = [(name, number) for name, number in diary.entries if name != "score"]
    of_step = [[("sample", 2 * step), ("sample", 2 * step + 1)] for step in range(4)]
    learned = [("learn", step) for step in range(4)]
    assert order == [
        *of_step[0], *of_step[1], learned[0], *of_step[2], learned[1], *of_step[3], learned[2], learned[3]
    ]  # fmt: skip
    assert found[0] == expected[0] and found[1]["loss"] != expected[1]["loss"]
    # The old log-probs are those of the weights that sampled, from before the last update.
    model = load_tiny(next((tmp_path / "step").glob("**/student")))
    for step, (rollouts, old, _) in enumerate(diary.taught):
        model.policy.load_state_dict(diary.weights[2 * step])
        again = score_tokens(model, rollouts, rows_at_once=64).logprobs
        torch.testing.assert_close(old, again, rtol=0, atol=1e-5)
    pairs = zip(diary.weights[::2], diary.weights[2::2], strict=False)
    same = [all(torch.equal(one[name], other[name]) for name in one) for one, other in pairs]
    assert same == [True, False, False]


def test_a_lost_teacher_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from reopold_vl.teachers import TeacherError

    def lost(self: LocalTeacher, rollouts: Sequence[Rollout]) -> TeacherScores:
        raise TeacherError("nobody answers there")

    def built(*args: Any, **settings: Any) -> Any:  # after the pair has been checked
        monkeypatch.setattr(LocalTeacher, "score", lost)
        return build_engine(*args, **settings)

    monkeypatch.setattr(loop, "build_engine", built)
    flags = (*test_golden.OBJECTIVES["reopold"], "--rollout.overlap", "parts")
    monkeypatch.setitem(test_golden.OBJECTIVES, "reopold", flags)
    with pytest.raises(AssertionError):
        test_golden.golden_run("reopold", tmp_path)
    assert "nobody answers there" in capsys.readouterr().err


@pytest.mark.parametrize("overlap", ["none", "step"])
def test_the_embedded_questions_are_encoded_ahead_as_well(
    vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch, overlap: Any
) -> None:
    """Its samples are made anew at each look: they are looked at once a step."""
    here: list[str] = []
    plain = PromptEncoder.__call__

    def spy(self: PromptEncoder, sample: VisualSample) -> Prompt:
        if threading.current_thread() is threading.main_thread():
            here.append(sample.id)
        return plain(self, sample)

    monkeypatch.setattr(PromptEncoder, "__call__", spy)
    ahead = EncodingAhead(vlm.encoder, 2)

    class Stub:
        exact = True
        splits = Splits(EmbeddedTrain(40), [], [])
        teacher = None

        def __init__(self) -> None:
            self.ahead = ahead

        def encode(self, samples: Sequence[VisualSample]) -> tuple[list[int], list[Prompt]]:
            return encode_share(ahead, samples)[:2]

        def generate(self, prompts: Sequence[Prompt], *, n: int, **_: Any) -> list[Rollout]:
            return random_rollouts(vlm, prompts, n=n, seed=0)

        def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
            return TeacherScores(torch.zeros(len(rollouts), 6))

    stub: Any = Stub()
    stub.teacher = stub
    config = TrainConfig(steps=3, prompts_per_step=3, rollout=RolloutConfig(n=2, overlap=overlap))
    asking = Asking(config, stub, stub)
    asked = [asking.step(step, Stopwatch()) for step in range(3)]
    assert here == [sample.id for sample in asked[0].samples]
    assert len({sample.id for one in asked for sample in one.samples}) == 9
    assert all(one.teacher().logprobs.shape[0] == len(one.rollouts) == 6 for one in asked)
    asking.close()


@pytest.mark.parametrize(
    ("name", "settings", "overlap", "allowed"),
    [
        ("sft", {}, "parts", "none with objective sft"),
        ("gkd", {}, "step", "none or parts with objective gkd"),
        ("reopold", {"shard_teacher": True}, "parts", "none with distributed.shard_teacher"),
    ],
)
def test_a_teacher_is_asked_by_one_at_a_time(name: str, settings: dict[str, Any], overlap: str, allowed: str) -> None:
    objective = OBJECTIVES[name]()
    with pytest.raises(ConfigError, match=f"rollout.overlap is {overlap}: allowed is {allowed}"):
        require_overlap(objective, overlap, **({"shard_teacher": False} | settings))
    require_overlap(objective, "none", shard_teacher=True)


def test_a_sleeping_engine_does_not_overlap() -> None:
    with pytest.raises(ConfigError, match=r"overlap is parts: allowed is none with rollout\.vllm"):
        RolloutConfig(engine="vllm", overlap="parts")
    RolloutConfig(engine="vllm", overlap="parts", vllm=VLLMConfig(sleep=False))
