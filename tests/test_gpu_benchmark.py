"""The benchmark for a card: shapes are the published ones, operations are counted right, and it runs on a CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.figures import real_sizes
from benchmarks.figures.setup import Step, build, samples
from benchmarks.gpu_results import Phase, Report, Training, heading, table, write_section
from benchmarks.gpu_shapes import (
    SIZES,
    WINDOW_PATCHES,
    Work,
    answers_work,
    build_model,
    build_module,
    decoder_work,
    image_work,
)
from benchmarks.gpu_step import LOADS, TEACHERS, make_prompts
from eval.flops import operations
from reopold_vl.collate import collate_rollouts
from reopold_vl.models import VisionLanguageModel
from reopold_vl.types import Rollout
from reopold_vl.zoo.architecture import build_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny() -> VisionLanguageModel:
    return build_model("tiny", dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("name", SIZES)
def test_shapes_have_the_published_number_of_parameters(name: str) -> None:
    module = build_module(SIZES[name], build_tokenizer(), dtype=torch.bfloat16, device=torch.device("meta"))
    assert sum(parameter.numel() for parameter in module.parameters()) == SIZES[name].parameters
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert set(LOADS) == set(TEACHERS) == set(SIZES)


def counted(counter: FlopCounterMode) -> tuple[float, float]:
    """(products with weights, products of activations) that torch saw."""
    operations = counter.get_flop_counts()["Global"]
    attention = sum(count for kind, count in operations.items() if "bmm" in str(kind))
    return sum(operations.values()) - attention, attention


def test_operations_are_those_that_torch_counts() -> None:
    """All but the causal half, because torch counts every pair of positions; plain attention is made of products."""
    tiny = build_model("tiny", dtype=torch.float32, device=CPU)
    module, (prompt,) = tiny.policy.model, make_prompts(tiny, replace(LOADS["tiny"], prompts=1))
    module.set_attn_implementation("eager")
    patches, length, response = len(prompt.vision["pixel_values"]), len(prompt.ids), 5
    answers = [Rollout(prompt, torch.arange(response), torch.zeros(response), torch.zeros(response), "length")] * 3
    batch = collate_rollouts(answers, pad_id=0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.policy.encode_images(batch.prompts)
    linear, attention = counted(counter)
    assert patches < WINDOW_PATCHES  # so that the tower's layers see all pairs
    assert image_work(module, patches) == Work(0.0, 0.0, linear + attention)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.policy(batch, batch.mask)
    whole_linear, whole_attention = counted(counter)
    work = answers_work(module, prompt=length, patches=patches, n=3, response=response)
    assert work.linear == whole_linear - linear
    own = response - 1
    seen = length * (length + 1) / 2 + 3 * own * (length + (own + 1) / 2)
    causal = (whole_attention - attention) * seen / (length**2 + 3 * own * (length + own))
    assert work.attention == pytest.approx(causal, rel=3e-3)  # rotary angles are products too, and tiny


def test_a_prompt_is_paid_for_once(tiny: VisionLanguageModel) -> None:
    """One answer costs what its whole row does; of several only the first pays for prompt and image."""
    module, shape = tiny.policy.model, {"prompt": 41, "patches": 36, "response": 6}
    one, many = (answers_work(module, n=n, **shape) for n in (1, 8))
    row = decoder_work(module, tokens=41 + 6 - 1, scored=6) + image_work(module, 36)
    assert (one.linear, one.tower) == (pytest.approx(row.linear), row.tower)
    assert one.attention == pytest.approx(row.attention)
    assert many.linear < 8 * one.linear / 3 and many.tower == one.tower
    assert decoder_work(module, tokens=0, scored=0).times(1, 1) == 0


def test_it_runs_on_a_cpu_and_leaves_a_dated_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "out" / "gpu.json", tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    old = "## One training step of Qwen2.5-VL tiny on the CPU\n\nold"
    page.write_text(f"# Results\n\n## Before\n\nkept\n\n{old}\n\n## After\n\nkept too\n")
    argv = ["--size", "tiny", "--device", "cpu", "--steps", "1", "--json", str(out), "--results", str(page)]
    assert gpu.main(argv) == 0
    found = json.loads(out.read_text())
    assert found["parity_mean"] < 0.01 and 0 < found["parity_max"] < 0.1 and found["matmul_rate"] > 1e8
    assert found["student_parameters"] == SIZES["tiny"].parameters
    for training in found["training"]:
        phases = {phase["name"]: phase for phase in training["phases"]}
        assert list(phases) == ["rollout", "student scoring", "teacher scoring", "gradient pass", "update"]
        assert all(phase["seconds"] > 0 and phase["peak_bytes"] > 2**20 for phase in phases.values())
        shares = [phase["share"] for phase in phases.values() if phase["share"] is not None]
        assert len(shares) == 4 and all(0 < share < 1 for share in shares)
        backward = phases["gradient pass"]["operations"] / phases["student scoring"]["operations"]
        assert backward == (3 if training["train"] == "full" else pytest.approx(1.75, abs=0.1))
    text = page.read_text()
    assert "old" not in text and text.index("kept\n") < text.index(found["date"]) < text.index("## After")
    assert text.count("## One training step") == 1 and text.endswith("kept too\n")
    assert capsys.readouterr().out.strip() in text


def report(**settings: object) -> Report:
    training = [
        Training("lora", True, "", [Phase("rollout", 2.0, 100.0, 5e12, 0.25, 2**30)]),
        Training("full", False, "CUDA out of memory", []),
    ]
    found = Report(
        card="Card X",
        date="2030-01-02",
        torch="9.9",
        size="3b",
        teacher="7b",
        student_parameters=3,
        teacher_parameters=7,
        load={"prompts": 1, "n": 2, "response": 3, "side": 4, "rows": 5, "rows_with_gradient": 6},
        prompt_tokens=10,
        image_tokens=9,
        matmul_rate=1e13,
        parity_mean=0.2,
        parity_max=0.3,
        parity_allowed=0.05,
        training=training,
    )
    return replace(found, **settings)


def test_a_report_says_what_did_not_fit_and_what_is_off(tmp_path: Path) -> None:
    shown = table(report())
    assert "| full | did not fit: CUDA out of memory |" in shown and "(ABOVE 0.05)" in shown
    assert "| lora | rollout | 2 | 100 | 5 | 25.0% | 1.0 |" in shown
    page = tmp_path / "results.md"
    for found in (report(), report(card="Card Y"), report(date="2031-02-03")):
        write_section(page, found)
    text = page.read_text()
    assert text.startswith("# Results\n") and text.count("2031-02-03") == 1 and text.count("2030-01-02") == 1
    assert text.count(heading(report())) == text.count(heading(report(card="Card Y"))) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--train", "half"], "--train is half: allowed is lora, full or lora,full"),
        (["--rows", "0"], "--rows is 0: allowed is 1 or more"),
        (["--steps", "0"], "--steps is 0: allowed is 1 or more"),
        (["--device", "gpu9"], "device is 'gpu9'"),
        (["--size", "70b"], "invalid choice: '70b'"),
    ],
)
def test_bad_arguments_are_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(argv)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("response", "side"), [(24, 224), (8, 336)])
def test_the_formula_for_a_step_is_what_torch_counts(response: int, side: int) -> None:
    """But for the half of attention that lies in the future, which torch counts and the formula does not."""
    questions = samples(2, side=side)
    step = Step(build(0), build(1), real_sizes.N, response, updates=2)
    counted = operations(lambda: step.run(questions, seed=0))
    prompt = len(step.student.encoder(questions[0]).ids)
    student, teacher = (model.policy.model for model in (step.student, step.teacher))
    formula, share = real_sizes.ours(student, teacher, prompt=prompt, response=response)
    assert 2 * formula == pytest.approx(counted, rel=0.1) and 2 * formula < counted
    assert 0.19 < share < 0.21  # one pass of five, as the teacher is as large as the student


def test_what_peers_read_again_is_in_their_operations() -> None:
    module = build(0).policy.model
    alone, _ = real_sizes.ours(module, module, prompt=288, response=48)
    assert real_sizes.grpo(module, prompt=288, response=48) > 4 * alone
    assert real_sizes.text().count("\n") == 2 + len(real_sizes.PAIRS) * len(real_sizes.SHAPES)
