"""The vLLM teacher over real HTTP against a server that answers as vLLM's source says, from plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import read_lines, small_pair, small_rows
from fake_vllm import FakeCore
from fake_vllm_server import FakeServer, serving
from PIL import ImageOps
from tiny import load_tiny, mixed_samples, plain_distribution, random_rollouts, save_tiny

from reopold_vl.logprobs import TokenStats
from reopold_vl.metrics import batch_metrics
from reopold_vl.models import VisionLanguageModel
from reopold_vl.objectives import Reopold
from reopold_vl.score import score
from reopold_vl.teachers import TeacherError, build
from reopold_vl.teachers.vllm import VLLMTeacher
from reopold_vl.train import main
from reopold_vl.types import Answer, Prompt, Rollout, VisualSample

Connect = Callable[..., VLLMTeacher]
# What does not depend on the architecture is tried with one.
one_family = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)


@pytest.fixture(scope="module")
def teacher_dir(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher"), family, seed=7, padded_vocab=64)


@pytest.fixture(scope="module")
def plain_teacher(teacher_dir: Path) -> VisionLanguageModel:
    """In float64, as is what it is held against: in float32 each is off by up to 1.2e-5 itself."""
    teacher = load_tiny(teacher_dir)
    teacher.policy.model.double()
    return teacher


@pytest.fixture(scope="module")
def core(teacher_dir: Path) -> FakeCore:
    core = FakeCore(teacher_dir)
    core.model.double()
    return core


@pytest.fixture
def server(core: FakeCore) -> Iterator[FakeServer]:
    yield FakeServer(core)
    core.impossible, core.max_model_len = (), 4096


@pytest.fixture
def connect(server: FakeServer, vlm: VisionLanguageModel) -> Iterator[Connect]:
    """Connects to `server` as a run would; settings of the connection may be changed."""
    with serving(server) as url:

        def connected(**changed: Any) -> VLLMTeacher:
            usual = {"token": None, "timeout_seconds": 20.0, "retries": 3, "requests_in_flight": 4}
            ids = {"encoder": vlm.encoder, "end_ids": vlm.eos_ids}
            teacher = build.connect(f"vllm+{url}/v1/", **ids | usual | changed)
            assert isinstance(teacher, VLLMTeacher)
            return replace(teacher, client=replace(teacher.client, wait=0.01))

        yield connected


@pytest.fixture(scope="module")
def rollouts(vlm: VisionLanguageModel, prompts: list[Prompt]) -> list[Rollout]:
    """Random bytes: most of them do not survive being text."""
    return random_rollouts(vlm, prompts, n=2, seed=3)


@pytest.fixture(scope="module")
def readable(vlm: VisionLanguageModel, prompts: list[Prompt]) -> list[Rollout]:
    """Answers whose text is tokenised into the very same ids; one ends with an end token."""
    texts = ("the sum of both digits", " is four\nanswer: 4", "red", "squares in the picture?<|im_end|>")
    encoded = [torch.tensor(vlm.tokenizer(text)["input_ids"]) for text in texts]
    zeros = [torch.zeros(len(ids)) for ids in encoded]
    return [Rollout(prompt, ids, z, z, "stop") for prompt, ids, z in zip(prompts, encoded, zeros, strict=True)]


@torch.no_grad()
def expected(teacher: VisionLanguageModel, rollout: Rollout) -> torch.Tensor:
    own = replace(rollout, prompt=teacher.encoder(rollout.prompt.sample))
    return plain_distribution(teacher.policy.model, own).log_prob(rollout.response_ids)


def require_scores(logprobs: torch.Tensor, rollouts: Sequence[Rollout], teacher: VisionLanguageModel) -> None:
    for row, rollout in zip(logprobs, rollouts, strict=True):
        length = len(rollout.response_ids)
        torch.testing.assert_close(row[:length], expected(teacher, rollout), rtol=0, atol=1e-5)
        assert not row[length:].any()


def test_token_ids_go_in_as_they_are(
    connect: Connect, server: FakeServer, rollouts: list[Rollout], plain_teacher: VisionLanguageModel
) -> None:
    teacher = connect()
    assert teacher.exact and teacher.name.startswith("teacher at http://127.0.0.1")
    scores = teacher.score(rollouts)
    assert scores.spans is None
    require_scores(scores.logprobs, rollouts, plain_teacher)
    asked = [body for path, body in server.asked if body.get("sampling_params", {}).get("prompt_logprobs") == 0]
    assert len(asked) == len(rollouts)
    placeholder = server.core.placeholder
    assert sorted(body["token_ids"].count(placeholder) for body in asked) == [0, 0, 1, 1, 1, 1, 2, 2]


def test_without_token_ids_the_answer_goes_in_as_text(
    connect: Connect, server: FakeServer, readable: list[Rollout], plain_teacher: VisionLanguageModel
) -> None:
    server.scale_out = False
    teacher = connect()
    assert not teacher.exact
    scores = teacher.score(readable)
    assert scores.spans is None
    require_scores(scores.logprobs, readable, plain_teacher)


@one_family
def test_answers_that_come_out_as_other_tokens_are_dropped_and_counted(
    connect: Connect,
    server: FakeServer,
    readable: list[Rollout],
    rollouts: list[Rollout],
    vlm: VisionLanguageModel,
    plain_teacher: VisionLanguageModel,
) -> None:
    server.scale_out = False
    mixed = [readable[0], *rollouts, readable[3]]
    texts = [vlm.tokenizer.decode(rollout.response_ids) for rollout in mixed]
    same = [vlm.tokenizer(text)["input_ids"] == r.response_ids.tolist() for text, r in zip(texts, mixed, strict=True)]
    scores = connect().score(mixed)
    assert scores.spans is not None
    assert [bool((row >= 0).any()) for row in scores.spans] == same and 2 <= sum(same) < len(mixed)
    kept = [index for index, good in enumerate(same) if good]
    require_scores(scores.logprobs[kept], [mixed[index] for index in kept], plain_teacher)

    zeros = torch.zeros_like(scores.logprobs)
    batch = score(mixed, TokenStats(zeros - 1.0, zeros + 1.0), scores)
    assert batch.mask.any(1).tolist() == same
    torch.testing.assert_close(batch.rewards[batch.mask], (scores.logprobs + 1.0)[batch.mask])
    assert batch_metrics(batch, Reopold()(batch, step=0))["teacher/dropped"] == same.count(False)


@one_family
def test_a_batch_of_which_nothing_can_be_scored_is_an_error(
    connect: Connect, server: FakeServer, prompts: list[Prompt]
) -> None:
    server.scale_out = False
    half = torch.tensor([0x0E, 0x0E])
    with pytest.raises(TeacherError, match=r"not one of 1 answers keeps its tokens .*--enable-scale-out"):
        odd = next(ids for ids in (half * k for k in range(11, 18)) if not _round_trips(ids, prompts, server))
        connect().score([Rollout(prompts[1], odd, torch.zeros(2), torch.zeros(2), "length")])


def _round_trips(ids: torch.Tensor, prompts: list[Prompt], server: FakeServer) -> bool:
    tokenizer = server.core.processor.tokenizer
    return tokenizer(tokenizer.decode(ids))["input_ids"] == ids.tolist()


@one_family
def test_probability_zero_is_a_finite_number_and_counted(
    connect: Connect, server: FakeServer, core: FakeCore, rollouts: list[Rollout]
) -> None:
    core.impossible = (int(rollouts[0].response_ids[0]),)
    scores = connect().score(rollouts)
    assert float(scores.logprobs[0, 0]) == -1000.0 and scores.logprobs.isfinite().all()
    zeros = torch.zeros_like(scores.logprobs)
    batch = score(rollouts, TokenStats(zeros, zeros), scores)
    assert batch_metrics(batch, Reopold()(batch, step=0))["teacher/impossible"] >= 1


@pytest.mark.parametrize("scale_out", [True, False])
def test_changed_pixels_change_the_scores(
    scale_out: bool, connect: Connect, server: FakeServer, readable: list[Rollout], vlm: VisionLanguageModel
) -> None:
    server.scale_out = scale_out
    teacher = connect()
    inverted = []
    for rollout in readable:
        sample = rollout.prompt.sample
        other = replace(sample, images=tuple(ImageOps.invert(image) for image in sample.images))
        inverted.append(replace(rollout, prompt=vlm.encoder(other)))
    plain, changed = (teacher.score(one).logprobs for one in (readable, inverted))
    moved = (plain - changed).abs().amax(1) > 1e-6
    assert moved.tolist() == [bool(rollout.prompt.vision) for rollout in readable]


FAULTS = [
    ("short", r"returned \d+ prompt_logprobs for \d+ tokens"),
    ("hole", r"sample \w+: no log-prob for token \d+ at position \d+"),
    ("other token", r"no log-prob for token"),
    ("null", r"no log-prob for token"),
    ("no ids", r"no prompt_token_ids: the server's vLLM is too old"),
    ("old", r"the server did not look at the images"),  # chats always had images
]


@one_family
@pytest.mark.parametrize(
    ("scale_out", "fault", "message"), [(True, *fault) for fault in FAULTS] + [(False, *fault) for fault in FAULTS[:-1]]
)
def test_planted_faults_are_told(
    scale_out: bool, fault: str, message: str, connect: Connect, server: FakeServer, readable: list[Rollout]
) -> None:
    server.scale_out = scale_out
    teacher = connect()
    server.faults = {fault}
    with pytest.raises(TeacherError, match=message):
        teacher.score(readable)


@pytest.mark.parametrize("scale_out", [True, False])
def test_another_number_of_image_tokens_is_told(
    scale_out: bool, teacher_dir: Path, vlm: VisionLanguageModel, readable: list[Rollout]
) -> None:
    core = FakeCore(teacher_dir, max_pixels=64 * 64)
    with serving(FakeServer(core, scale_out=scale_out)) as url:
        patience = {"token": None, "timeout_seconds": 20.0, "retries": 0, "requests_in_flight": 2}
        teacher = build.connect(f"vllm+{url}", encoder=vlm.encoder, end_ids=vlm.eos_ids, **patience)
        with pytest.raises(TeacherError, match=r"of its tokens are the image's, of ours \d+: give both the same pixel"):
            teacher.score(readable)
        view = teacher.view(readable[0].prompt.sample)
        assert view is not None and view.image_tokens < int(readable[0].prompt.token_types.sum())


def test_the_view_is_ours(connect: Connect, vlm: VisionLanguageModel) -> None:
    teacher = connect()
    for sample in mixed_samples():
        view, prompt = teacher.view(sample), vlm.encoder(sample)
        assert view.text == vlm.encoder.render(sample)
        assert (view.prompt_tokens, view.image_tokens) == (len(prompt.ids), int(prompt.token_types.sum()))
        assert view.image_sizes == tuple(image.size for image in vlm.encoder.images(sample))


@one_family
def test_another_chat_template_is_told(teacher_dir: Path, vlm: VisionLanguageModel, readable: list[Rollout]) -> None:
    core = FakeCore(teacher_dir)
    core.processor.chat_template = core.processor.chat_template.replace("assistant\n", "helper\n")
    with serving(FakeServer(core, scale_out=False)) as url:
        patience = {"token": None, "timeout_seconds": 20.0, "retries": 0, "requests_in_flight": 2}
        teacher = build.connect(f"vllm+{url}", encoder=vlm.encoder, end_ids=vlm.eos_ids, **patience)
        with pytest.raises(TeacherError, match="other template or tokenizer"):
            teacher.answer([readable[0].prompt.sample], max_new_tokens=2, rows_at_once=1)


def generated(teacher: VisionLanguageModel, sample: VisualSample) -> Answer:
    """Greedy decoding by transformers itself."""
    prompt = teacher.encoder(sample)
    made = teacher.policy.model.generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
        mm_token_type_ids=prompt.token_types[None],
        **dict(prompt.vision),
        do_sample=False,
        max_new_tokens=6,
    )[0, len(prompt.ids) :]
    ended = int(made[-1]) in teacher.eos_ids
    return Answer(teacher.tokenizer.decode(made, skip_special_tokens=True), "stop" if ended else "length")


def test_greedy_answers_are_those_of_transformers(
    connect: Connect, server: FakeServer, plain_teacher: VisionLanguageModel
) -> None:
    server.repetition_penalty = 1.05  # of the model's generation settings: must not be heeded
    samples = mixed_samples()
    answers, reasons = connect().answer(samples, max_new_tokens=6, rows_at_once=4)
    ours = [generated(plain_teacher, sample) for sample in samples]
    assert answers == ours and reasons == []
    broken = replace(samples[0], id="broken", images=(Path("nowhere.png"),))
    answers, reasons = connect().answer([samples[1], broken], max_new_tokens=6, rows_at_once=4)
    assert answers == [ours[1], None] and reasons[0].startswith("broken: image 'nowhere.png'")


@one_family
def test_a_rollout_without_room_for_one_more_token_is_told(
    connect: Connect, server: FakeServer, core: FakeCore, rollouts: list[Rollout]
) -> None:
    needed = max(len(rollout.prompt.ids) + len(rollout.response_ids) + 1 for rollout in rollouts)
    core.max_model_len = needed
    teacher = connect()
    teacher.score(rollouts)
    core.max_model_len = needed - 1
    with pytest.raises(TeacherError, match="longer than the maximum model length"):  # the server's own words
        teacher.score(rollouts)
    with pytest.raises(TeacherError, match=rf"needs {needed} tokens and the server takes {needed - 1}: raise"):
        connect().score(rollouts)


@one_family
def test_a_busy_server_is_asked_again_and_a_dead_one_is_told(
    connect: Connect, server: FakeServer, readable: list[Rollout], vlm: VisionLanguageModel
) -> None:
    teacher = connect()
    server.busy = 3
    teacher.score(readable)
    assert server.busy == 0
    server.busy = 10**6
    with pytest.raises(TeacherError, match="HTTP 503: Generation is paused"):
        teacher.score(readable)
    patience = {"token": None, "timeout_seconds": 2.0, "retries": 0, "requests_in_flight": 1}
    with pytest.raises(TeacherError, match=r"127\.0\.0\.1:9: cannot be reached"):
        build.connect("vllm+http://127.0.0.1:9", encoder=vlm.encoder, end_ids=vlm.eos_ids, **patience)


@one_family
def test_a_key_is_asked_for_and_sent(connect: Connect, server: FakeServer, readable: list[Rollout]) -> None:
    server.key = "secret"
    with pytest.raises(TeacherError, match="HTTP 401"):
        connect()
    connect(token="secret").score(readable)


@one_family
def test_another_model_is_refused(connect: Connect, server: FakeServer) -> None:
    with pytest.raises(TeacherError, match="serves teacher: asked for other"):
        connect(served_model="other")
    assert connect(served_model="teacher").model == "teacher"


def test_a_run_learns_from_it_what_it_learns_from_the_same_teacher_here(tmp_path: Path) -> None:
    pair, rows = small_pair(tmp_path), small_rows(tmp_path)
    flags = [*pair, "--data.path", str(rows), "--prompts-per-step", "4", "--rollout.n", "2", "--threads", "1"]
    flags += ["--rollout.max-new-tokens", "8", "--steps", "2", "--output-dir", str(tmp_path)]
    assert main([*flags, "--name", "here"]) == 0
    with serving(FakeServer(FakeCore(pair[pair.index("--teacher.path") + 1]))) as url:
        assert main([*flags, "--name", "there", "--teacher.path", f"vllm+{url}"]) == 0
    here, there = (read_lines(tmp_path / name / "metrics.jsonl")[1:] for name in ("here", "there"))
    for local, remote in zip(here, there, strict=True):
        assert remote["reward/mean"] == pytest.approx(local["reward/mean"], abs=1e-4)
        assert remote["loss"] == pytest.approx(local["loss"], abs=1e-3)
