"""The shipped directories: loadable by anybody, small, one tokenizer, ids and pixels equal to the processor's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from reopold_vl.zoo import build, task
from reopold_vl.zoo.architecture import TEACHER, build_model, build_processor, build_tokenizer
from reopold_vl.zoo.batches import grids, pixel_patches, positions, prompt_text, supervised_batch
from reopold_vl.zoo.decode import accuracy_by_type, greedy_answers

NAMES = ("teacher", "student")


@pytest.fixture(scope="module")
def models() -> dict:
    return {name: AutoModelForImageTextToText.from_pretrained(build.HERE / name).eval() for name in NAMES}


@pytest.fixture(scope="module")
def processors() -> dict:
    return {name: AutoProcessor.from_pretrained(build.HERE / name) for name in NAMES}


def encode(processor, question: str, image: Image.Image) -> dict:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return processor(text=[text], images=[image], return_tensors="pt")


def test_directories_are_small_and_hold_no_pickle() -> None:
    files = [file for name in NAMES for file in (build.HERE / name).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 12 * 2**20
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors", ".txt"}


def test_teacher_is_three_times_the_student(models: dict) -> None:
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert sizes["teacher"] >= 3 * sizes["student"]
    assert all(type(model).__name__ == "Qwen2_5_VLForConditionalGeneration" for model in models.values())
    assert all(p.dtype == torch.float32 for model in models.values() for p in model.parameters())


def test_end_of_turn_is_the_end_token(models: dict, processors: dict) -> None:
    for name in NAMES:
        end = processors[name].tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert models[name].generation_config.eos_token_id == end
        assert processors[name].tokenizer.eos_token_id == end


def test_tokenizer_round_trip_and_single_digits(processors: dict) -> None:
    tokenizer = processors["student"].tokenizer
    for text in ("Grüße, 世界!\n 42", "red squares: 010,000 = 1. Answer: 3", task.problem("test", 4).steps):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer("0123456789").input_ids) == 10
    for word in (" circle", " Answer", " row", " column", "What", " larger"):
        assert len(tokenizer(word).input_ids) == 1


def test_shipped_tokenizer_is_the_built_one(processors: dict) -> None:
    built = build_tokenizer()
    for name in NAMES:
        assert processors[name].tokenizer.get_vocab() == built.get_vocab()


def test_both_processors_make_the_same_ids_and_pixels(processors: dict) -> None:
    for index in range(11):
        sample = task.problem("test", index).sample
        one, other = (encode(processors[name], sample.question, sample.images[0]) for name in NAMES)
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert (one["image_grid_thw"].tolist(), one["input_ids"].shape[1] <= 32) == ([[1, 6, 6]], True)


def test_training_batches_equal_the_processors(processors: dict, models: dict) -> None:
    processor, model = processors["student"], models["student"]
    item = task.problem("test", 7)
    inputs = encode(processor, item.sample.question, item.sample.images[0])
    ids = processor.tokenizer(prompt_text(item.sample.question)).input_ids
    assert inputs["input_ids"][0].tolist() == ids
    assert torch.allclose(inputs["pixel_values"], pixel_patches(item.sample.images), atol=1e-6)
    batch = supervised_batch(processor.tokenizer, [(item.sample.images[0], item.sample.question, item.steps)])
    trained = batch.targets[0][batch.targets[0] != -100]
    assert processor.tokenizer.decode(trained) == item.steps + "<|im_end|>"
    with torch.no_grad():
        plain = model(**inputs).logits[0, -1]
        ours = model(
            input_ids=batch.ids,
            pixel_values=batch.pixels,
            image_grid_thw=grids(1),
            position_ids=positions(model, batch.ids),
        ).logits[0, len(ids) - 1]
    assert torch.allclose(plain, ours, atol=1e-4)


def test_chat_template_takes_system_turns_and_other_sizes(processors: dict) -> None:
    processor = processors["student"]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is the 5?"}]},
        {"role": "assistant", "content": "Answer: row 1, column 1"},
        {"role": "user", "content": "How many circles are there?"},
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|>")
    assert text.endswith("How many circles are there?<|im_end|>\n<|im_start|>assistant\n")
    inputs = processor(text=[text], images=[Image.new("RGB", (140, 112))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 10]]


def test_pair_answers_and_needs_its_eyes(models: dict, processors: dict) -> None:
    items = [task.problem("validation", index) for index in range(110)]
    questions = [item.sample.question for item in items]
    images = [item.sample.images[0] for item in items]
    tokenizer = processors["teacher"].tokenizer
    teacher = accuracy_by_type(items, greedy_answers(models["teacher"], tokenizer, questions, images))["all"]
    student = accuracy_by_type(items, greedy_answers(models["student"], tokenizer, questions, images))["all"]
    swapped = accuracy_by_type(
        items, greedy_answers(models["teacher"], tokenizer, questions, images[11:] + images[:11])
    )["all"]
    assert teacher >= 0.85
    assert 0.2 <= student <= 0.7
    assert swapped <= 0.35


def test_a_scaled_down_build_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reopold_vl.zoo.build", "--output-dir", str(tmp_path), "--scale", "0.001"]
    subprocess.run(command, check=True, timeout=120, cwd=build.HERE.parents[1])
    for name in NAMES:
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["model_type"] == "qwen2_5_vl"
        AutoModelForImageTextToText.from_pretrained(tmp_path / name)


def test_weights_start_from_the_seed() -> None:
    tokenizer = build_tokenizer()
    first, second, other = (build_model(TEACHER, tokenizer, seed) for seed in (1, 1, 2))
    weights = [model.model.language_model.embed_tokens.weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert build_processor(tokenizer).tokenizer is tokenizer
