"""vLLM as the student's engine, in this process and behind a server, by stand-ins made after vLLM's source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import read_lines, small_pair, small_rows
from fake_vllm import FakeCore
from fake_vllm_module import fake_module
from fake_vllm_server import FakeServer, serving
from safetensors.torch import load_file
from tiny import load_tiny, mixed_samples, plain_distribution

from reopold_vl.config import ConfigError, RolloutConfig, TrainConfig
from reopold_vl.config.rollout import VLLMConfig
from reopold_vl.config_file import read_config, write_config
from reopold_vl.models import VisionLanguageModel
from reopold_vl.rollout import Engine
from reopold_vl.rollout.build import build_engine
from reopold_vl.rollout.vllm_answers import EngineError, answer
from reopold_vl.rollout.vllm_weights import checkpoint_weights
from reopold_vl.student import prepare_student
from reopold_vl.train import main
from reopold_vl.types import Prompt, Rollout

NEW = 5  # tokens
Build = Callable[..., Engine]
# What does not depend on the architecture is tried with one.
one_family = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in module; `vllm.LLM.made` lists the engines of the test."""
    module = fake_module()
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    return module


def settings(**vllm_settings: Any) -> dict[str, Any]:
    kind = vllm_settings.pop("kind", "vllm")
    config = RolloutConfig(max_new_tokens=NEW, max_prompt_tokens=2000, engine=kind, vllm=VLLMConfig(**vllm_settings))
    return config.engine_settings


@pytest.fixture(params=["sleeping", "awake", "server"])
def build(
    request: pytest.FixtureRequest, vllm: Any, tiny_dirs: dict[str, Path], family: str, tmp_path: Path
) -> Iterator[Build]:
    """Each of the three ways of having vLLM as engine."""
    if request.param != "server":
        yield lambda student: build_engine(student, **settings(sleep=request.param == "sleeping"))
        return
    with serving(FakeServer(FakeCore(tiny_dirs[family], max_model_len=2048), name="student")) as url:
        yield lambda student: build_engine(
            student, **settings(kind="vllm-server", url=url, weights_dir=str(tmp_path / "w"))
        )


@pytest.fixture
def student(fresh_vlm: VisionLanguageModel) -> VisionLanguageModel:
    return fresh_vlm


@pytest.fixture
def asked(student: VisionLanguageModel) -> list[Prompt]:
    return [student.encoder(sample) for sample in mixed_samples()]


def generate(engine: Engine, prompts: list[Prompt], **changed: Any) -> list[Rollout]:
    wanted: dict[str, Any] = {"n": 2, "max_new_tokens": NEW, "seed": 5, **changed}
    return engine.generate(prompts, **wanted)


@torch.no_grad()
def require_logprobs(student: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    """The engine's log-probs are those of the student as it is now, by plain transformers."""
    for rollout in rollouts:
        expected = plain_distribution(student.policy.model, rollout).log_prob(rollout.response_ids)
        torch.testing.assert_close(rollout.logprobs, expected, rtol=0, atol=1e-4)


def move(student: VisionLanguageModel) -> None:
    """An update that every weight feels, vision tower included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in student.policy.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def test_answers_are_complete_rollouts_in_the_prompts_order(
    build: Build, student: VisionLanguageModel, asked: list[Prompt]
) -> None:
    engine = build(student)
    rollouts = generate(engine, asked, n=3)
    assert not engine.exact
    assert [rollout.prompt for rollout in rollouts] == [prompt for prompt in asked for _ in range(3)]
    require_logprobs(student, rollouts)
    for rollout in rollouts:
        ids = rollout.response_ids.tolist()
        assert rollout.entropy.isnan().all() and 1 <= len(ids) <= NEW
        assert (ids[-1] in student.eos_ids) == (rollout.finish_reason == "stop")
        assert not set(ids) & set(student.banned_ids)
    assert len({tuple(rollout.response_ids.tolist()) for rollout in rollouts}) > len(asked)


def test_new_weights_are_handed_over(build: Build, student: VisionLanguageModel, asked: list[Prompt]) -> None:
    engine = build(student)
    before = generate(engine, asked)
    move(student)
    engine.sync()
    after = generate(engine, asked)
    require_logprobs(student, after)
    with pytest.raises(AssertionError):  # so the old weights would have been seen
        require_logprobs(student, before)


@one_family
def test_without_sync_an_engine_that_keeps_its_weights_keeps_the_old(
    vllm: Any, student: VisionLanguageModel, asked: list[Prompt]
) -> None:
    """What the test above proves: the stand-in does not look at the student by itself."""
    engine = build_engine(student, **settings(sleep=False))
    before = generate(engine, asked)
    move(student)
    again = generate(engine, asked)
    assert all(torch.equal(old.logprobs, new.logprobs) for old, new in zip(before, again, strict=True))


@one_family
def test_answers_follow_seed_and_key_alone(build: Build, student: VisionLanguageModel, asked: list[Prompt]) -> None:
    engine = build(student)

    def ids(prompts: list[Prompt], **changed: Any) -> list[list[int]]:
        return [rollout.response_ids.tolist() for rollout in generate(engine, prompts, **changed)]

    whole = ids(asked)
    assert ids(asked[2:], keys=[2, 3]) == whole[4:]
    assert ids(asked, keys=[0, 1, 2, 3]) == whole
    assert ids(asked, n=1) == whole[::2]  # an answer does not depend on how many others there are
    assert ids(asked, seed=6) != whole
    assert ids([asked[0], asked[0]])[:2] != ids([asked[0], asked[0]])[2:]


@one_family
def test_greedy_is_greedy(build: Build, student: VisionLanguageModel, asked: list[Prompt]) -> None:
    ours = student.engine(rows_at_once=8).generate(asked, n=1, max_new_tokens=NEW, seed=0, temperature=0.0)
    theirs = generate(build(student), asked, n=1, temperature=0.0)
    assert [r.response_ids.tolist() for r in theirs] == [r.response_ids.tolist() for r in ours]


@one_family
def test_sleep_comes_round_and_what_is_asked_is_told(
    vllm: Any, student: VisionLanguageModel, asked: list[Prompt]
) -> None:
    engine = build_engine(student, **settings(sleep=True, gpu_memory=0.3, eager=True))
    generate(engine, asked)
    (llm,) = vllm.LLM.made
    wake = ["wake ['weights']", "reload_weights", "wake ['kv_cache']", "generate", "sleep 2"]
    assert llm.calls == ["sleep 2", *wake]
    engine.sync()
    generate(engine, asked)
    assert llm.calls == ["sleep 2", *wake, *wake]
    assert llm.arguments["max_model_len"] == 2000 + NEW and llm.arguments["dtype"] == "float32"
    assert llm.arguments["gpu_memory_utilization"] == 0.3 and llm.arguments["enforce_eager"] is True
    request, params = llm.asked[2]  # two images, of which each has one placeholder
    assert request["prompt_token_ids"].count(llm.core.placeholder) == len(request["multi_modal_data"]["image"]) == 2
    assert (params.temperature, params.top_p, params.n, params.logprobs) == (1.0, 1.0, 2, 0)
    assert params.logit_bias == dict.fromkeys(student.banned_ids, -100.0)
    assert params.ignore_eos and params.stop_token_ids == list(student.eos_ids)


def test_adapters_are_handed_over_as_whole_weights(
    build: Build, student: VisionLanguageModel, asked: list[Prompt]
) -> None:
    pytest.importorskip("peft")
    prepare_student(student, rank=4, alpha=8.0, seed=1)
    with torch.no_grad():
        for name, parameter in student.policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    engine = build(student)
    kept = {name: tensor.clone() for name, tensor in student.policy.state_dict().items()}
    require_logprobs(student, generate(engine, asked))
    assert all(torch.equal(kept[name], tensor) for name, tensor in student.policy.state_dict().items())


def test_weights_have_the_checkpoints_names(family: str, tiny_dirs: dict[str, Path]) -> None:
    student = load_tiny(tiny_dirs[family])
    saved = load_file(tiny_dirs[family] / "model.safetensors")
    weights = dict(checkpoint_weights(student.policy.model))
    assert weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)


@one_family
def test_another_picture_is_told(vllm: Any, student: VisionLanguageModel, asked: list[Prompt]) -> None:
    engine: Any = build_engine(student, **settings())
    engine.llm.core.processor.image_processor.size["longest_edge"] = 64 * 64
    with pytest.raises(EngineError, match=r"sample \w+: vLLM's prompt has \d+ tokens, ours \d+; \d+ .* image's"):
        generate(engine, asked)


@one_family
def test_another_model_is_told(vllm: Any, student: VisionLanguageModel, asked: list[Prompt]) -> None:
    engine: Any = build_engine(student, **settings(sleep=False))
    engine.llm.core.reload_weights = lambda weights_iterator: None
    move(student)
    with pytest.raises(EngineError, match=r"vLLM's log-probs differ from the trainer's by [\d.]+ nats a token"):
        generate(engine, asked)


@one_family
@pytest.mark.parametrize(
    ("ids", "reason", "message"),
    [
        ([5, 6], "abort", r"ended with 'abort'"),
        ([], "stop", r"has 0 tokens"),
        ([5], "stop", r"ended with 'stop' at token 5; end tokens are \[310\]"),
        ([310], "length", r"ended with 'length' at token 310"),
        ([310, 5], "length", r"ended with 'length' at token 5"),
        ([5, 316], "length", r"holds token 316, which it was told"),
    ],
)
def test_answers_that_cannot_be_trained_on_are_told(
    ids: list[int], reason: str, message: str, prompts: list[Prompt]
) -> None:
    with pytest.raises(EngineError, match=message):
        answer(prompts[0], ids, [-1.0] * len(ids), reason, eos_ids=[310], banned_ids=[315, 316])


@one_family
def test_a_server_that_cannot_reload_is_told(
    student: VisionLanguageModel, tiny_dirs: dict[str, Path], family: str, asked: list[Prompt], tmp_path: Path
) -> None:
    with serving(FakeServer(FakeCore(tiny_dirs[family]), dev_mode=False)) as url:
        engine = build_engine(student, **settings(kind="vllm-server", url=url, weights_dir=str(tmp_path)))
        with pytest.raises(EngineError, match=r"cannot be handed over: .* 404.*VLLM_SERVER_DEV_MODE=1"):
            generate(engine, asked)


@one_family
def test_a_server_on_old_weights_only_is_asked_to_forget_them(
    student: VisionLanguageModel, tiny_dirs: dict[str, Path], family: str, asked: list[Prompt], tmp_path: Path
) -> None:
    server = FakeServer(FakeCore(tiny_dirs[family]))
    with serving(server) as url:
        engine = build_engine(student, **settings(kind="vllm-server", url=url, weights_dir=str(tmp_path)))
        generate(engine, asked)
        generate(engine, asked)
    paths = [path for path, _ in server.asked]
    assert paths.count("/collective_rpc") == 1  # nothing has moved in between
    assert paths[1:5] == ["/collective_rpc", "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache"]


@contextmanager
def hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vllm", None)
        yield


@one_family
def test_without_the_package_there_is_one_line(
    student: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        hidden(monkeypatch),
        pytest.raises(EngineError, match=r"rollout.engine is vllm: .* pip install 'reopold-vl\[vllm\]'"),
    ):
        build_engine(student, **settings())
    with hidden(monkeypatch):
        flags = ["--rollout.engine", "vllm", "--output-dir", str(tmp_path / "runs")]
        assert main(flags) != 0
    assert "pip install 'reopold-vl[vllm]'" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpu_memory": 1.0}, "rollout.vllm.gpu_memory is 1.0: allowed is above 0 and below 1"),
        ({"max_model_len": 100}, "rollout.vllm.max_model_len is 100: allowed is at least 2005"),
        ({"kind": "vllm-server"}, "rollout.vllm.url is None"),
        ({"kind": "vllm-server", "url": "http://u:p@host"}, "rollout.vllm.url is not shown"),
        ({"kind": "vllm-server", "url": "gpu-7:8000"}, "rollout.vllm.url is gpu-7:8000"),
        ({"kind": "vllm-server", "url": "http://host:8000"}, "rollout.vllm.weights_dir is None"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(**changed)
    assert message in str(error.value)


def test_the_settings_are_written_and_read_back(tmp_path: Path) -> None:
    there = VLLMConfig(url="http://gpu-7:8000", weights_dir="/shared/weights", sleep=False)
    config = TrainConfig(rollout=RolloutConfig(engine="vllm-server", vllm=there))
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def test_a_run_trains_through_it(vllm: Any, tmp_path: Path) -> None:
    """Two steps from the command line: answers by vLLM, scored again by the trainer, weights handed over."""
    pair, rows = small_pair(tmp_path), small_rows(tmp_path)
    flags = [*pair, "--data.path", str(rows), "--prompts-per-step", "4", "--rollout.n", "2", "--threads", "1"]
    flags += ["--rollout.max-new-tokens", "8", "--steps", "2", "--optim.lr", "0.01", "--output-dir", str(tmp_path)]
    assert main([*flags, "--rollout.engine", "vllm", "--name", "run"]) == 0
    records = read_lines(tmp_path / "run" / "metrics.jsonl")[1:]
    assert all(0 < record["rollout/engine_gap"] < 1e-4 for record in records)  # the second with the first's update
    assert all(record["optim/grad_norm"] > 0 for record in records)
    (llm,) = vllm.LLM.made
    assert llm.calls.count("generate") == 2
    assert "engine: vllm\n" in (tmp_path / "run" / "config.yaml").read_text()
