"""Bad input through the command: exit status 2, one line that says what to do, and no run directory left behind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from cli_help import SMALL, read_lines, refused, run_fresh, small_pair, small_rows, warm
from safetensors.torch import load_file, save_file
from tiny import save_tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def pair(root: Path) -> tuple[str, ...]:
    return small_pair(root)


@pytest.fixture(scope="module")
def rows(root: Path) -> Path:
    return small_rows(root)


@pytest.fixture
def refusal(tmp_path: Path, pair: tuple[str, ...], rows: Path):
    """Run the tiny pair on the good rows with some flags changed; the one line it is refused with."""

    def run(*flags: object) -> str:
        output = tmp_path / "runs"
        given = {str(flag) for flag in flags}
        good = [("--data.path", rows), (pair[0], pair[1]), (pair[2], pair[3]), ("--output-dir", output)]
        kept = [str(part) for name, value in good if name not in given for part in (name, value)]
        message = refused(warm().run(*kept, *SMALL, "--steps", 1, *flags))
        assert not output.exists(), "a run directory was left behind"
        return message

    return run


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Models


def test_missing_model_directory(refusal, tmp_path: Path) -> None:
    message = refusal("--student.path", tmp_path / "absent")
    assert str(tmp_path / "absent") in message and "no such directory" in message


def test_directory_without_a_model(refusal, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refusal("--teacher.path", tmp_path / "empty")
    assert str(tmp_path / "empty") in message and "config.json is missing" in message


def test_broken_model_configuration(refusal, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal("--teacher.path", tmp_path / "broken")


def test_weights_are_missing(refusal, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "weightless", "qwen2_5_vl", seed=1)
    (directory / "model.safetensors").unlink()
    assert str(directory) in refusal("--student.path", directory)


def test_a_weight_that_is_missing_is_not_drawn_at_random(refusal, tmp_path: Path) -> None:
    file = save_tiny(tmp_path / "gap", "qwen2_5_vl", seed=1) / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.1.mlp" in name)
    save_file({other: weight for other, weight in weights.items() if other != name}, file, metadata={"format": "pt"})
    message = refusal("--teacher.path", file.parent)
    assert "1 weight is missing from its files" in message and str(file.parent) in message
    assert message.rstrip().endswith(name.removeprefix("model."))


def test_weights_of_other_sizes_than_the_configuration_says(refusal, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "sizes", "qwen2_5_vl", seed=1)
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 128
    (directory / "config.json").write_text(json.dumps(config))
    message = refusal("--student.path", directory)
    assert "mlp.down_proj.weight is (32, 64) in the weights and (32, 128) by config.json" in message


def test_a_setting_of_the_wrong_type(refusal, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "wrong", "qwen2_5_vl", seed=1)
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["hidden_size"] = "large"
    (directory / "config.json").write_text(json.dumps(config))
    assert "hidden_size" in refusal("--student.path", directory)


def test_the_tokenizer_is_missing(refusal, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "wordless", "qwen2_5_vl", seed=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    assert "its files are missing or another's" in refusal("--student.path", directory)


@pytest.mark.parametrize("template", ["{% for m in messages %}", "{{ messages[0].content.a.b }}", "{{ 1 / 0 }}"])
def test_a_chat_template_that_cannot_be_rendered(template: str, refusal, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "broken", "qwen2_5_vl", seed=1)
    (directory / "chat_template.jinja").write_text(template)
    assert "the chat template cannot render it" in refusal("--student.path", directory)
    assert "the chat template cannot render it" in refusal("--teacher.path", directory)


def test_weights_are_damaged(refusal, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "damaged", "qwen2_5_vl", seed=1)
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert str(directory) in refusal("--student.path", directory)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
@pytest.mark.parametrize("processor", [False, True])
def test_a_language_model_is_no_student(kind: str, processor: bool, refusal, tmp_path: Path) -> None:
    from tiny import tiny_processor, tiny_tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer()
    if kind == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    directory = tmp_path / kind
    model.save_pretrained(directory)
    (tiny_processor("qwen2_5_vl", tokenizer) if processor else tokenizer).save_pretrained(directory)
    message = refusal("--student.path", directory)
    assert str(directory) in message and "vision-language model" in message


def test_unknown_embedded_model(refusal) -> None:
    assert "zoo:student and zoo:teacher" in refusal("--student.path", "zoo:pupil")


def test_a_hub_id_that_is_not_at_hand(refusal) -> None:
    assert "nobody/nothing-at-all" in refusal("--student.path", "nobody/nothing-at-all")


def test_teacher_of_another_tokenizer(refusal, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", "qwen2_5_vl", seed=3, texts=("entirely different words, zebra zebra zebra",))
    message = refusal("--teacher.path", other)
    assert "tokenizers differ: id " in message and "--teacher.align text" in message


def test_teacher_of_another_chat_template(refusal, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", "qwen2_5_vl", seed=3)
    template = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text(template.replace("assistant", "teacher"))
    assert "chat templates differ at character" in refusal("--teacher.path", other)


# Data


def test_missing_data(refusal, rows: Path) -> None:
    message = refusal("--data.path", rows.with_name("row.jsonl"))
    assert "no such file or directory" in message and "rows.jsonl" in message


def test_data_of_an_unknown_kind(refusal, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\n")
    assert ".parquet, .jsonl, .json" in refusal("--data.path", tmp_path / "rows.csv")


def test_a_directory_without_data(refusal, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "holds a .parquet or .jsonl file" in refusal("--data.path", tmp_path / "data")


def test_a_parquet_that_is_none(refusal, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing more")
    assert "unreadable parquet" in refusal("--data.path", tmp_path / "rows.parquet")


def test_an_empty_file(refusal, tmp_path: Path) -> None:
    message = refusal("--data.path", write_jsonl(tmp_path / "rows.jsonl"))
    assert "0 usable rows" in message and "add rows" in message


def test_fewer_rows_than_a_batch(refusal, rows: Path) -> None:
    message = refusal("--prompts-per-step", "31")
    assert "30 usable rows" in message and "lower --prompts-per-step" in message


def test_no_usable_row_names_the_first_reasons(refusal, tmp_path: Path) -> None:
    absent = [{"image": f"{name}.png", "question": "?", "answer": "1"} for name in "abcde"]
    message = refusal("--data.path", write_jsonl(tmp_path / "rows.jsonl", *absent))
    assert "0 usable rows" in message and "5 skipped" in message and "a.png': no such file" in message


@pytest.mark.parametrize("missing", ["image", "question", "answer"])
def test_missing_columns(missing: str, refusal, tmp_path: Path) -> None:
    row = {"image": "x.png", "question": "q", "answer": "a", "more": 1}
    row[f"my_{missing}"] = row.pop(missing)
    message = refusal("--data.path", write_jsonl(tmp_path / "rows.jsonl", row, row))
    assert f"no column holds the {missing}" in message and f"my_{missing}" in message


def test_missing_test_data(refusal, tmp_path: Path) -> None:
    assert "absent.jsonl" in refusal("--data.test-path", tmp_path / "absent.jsonl")


def test_data_flags_without_data(tmp_path: Path) -> None:
    result = warm().run("--data.limit", "5", "--output-dir", tmp_path / "runs")
    assert "data.limit need data.path" in refused(result) and not (tmp_path / "runs").exists()


# Places


def test_an_output_directory_that_holds_something_else(refusal, tmp_path: Path) -> None:
    (tmp_path / "mine" / "thesis").mkdir(parents=True)
    (tmp_path / "mine" / "thesis" / "chapter1.tex").write_text("...")
    for more in ((), ("--overwrite",)):
        message = refusal("--output-dir", tmp_path / "mine", "--name", "thesis", *more)
        assert "is not empty and holds no run" in message and "--name" in message
    assert (tmp_path / "mine" / "thesis" / "chapter1.tex").read_text() == "..."


def test_an_output_directory_that_is_a_file(refusal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("...")
    assert "cannot be created" in refusal("--output-dir", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "..."


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed(tracker: str, refusal) -> None:
    if importlib.util.find_spec(tracker) is not None:
        pytest.skip(f"{tracker} is installed")
    assert f"pip install {tracker}" in refusal("--trackers", tracker)


# Rows that cannot be used, among good ones


def test_unusable_rows_are_counted_and_listed_and_the_run_goes_on(
    pair: tuple[str, ...], rows: Path, tmp_path: Path
) -> None:
    good = [json.loads(line) for line in rows.read_text().splitlines()]
    for row in good:
        row["image"] = str(rows.parent / row["image"])
    (tmp_path / "garbage.png").write_bytes(b"this is no picture")
    # Its header is fine, so it is found only when its pixels are wanted; as row 0 it is among the rows checked first.
    whole = Path(good[0]["image"]).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    bad = [
        {**good[1], "image": "garbage.png"},
        {**good[1], "image": None},
        {**good[1], "answer": None},
        {**good[1], "question": " "},
        {**good[1], "image": "absent.png"},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", {**good[0], "image": "cut.png", "id": "cut"}, *bad, *good[1:])
    held_out = ["--data.validation-rows", 0, "--data.test-rows", 0]
    flags = [*pair, "--data.path", path, "--output-dir", tmp_path / "runs", *SMALL, "--steps", 10, *held_out]
    result = warm().run(*flags)
    assert result.code == 0, result.stderr[-2000:]
    assert "35 rows, 5 skipped" in result.stdout
    for reason in ("garbage.png': not an image", "row 2: no image", "row 3: no answer"):
        assert reason in result.stdout, result.stdout
    run = tmp_path / "runs" / "embedded"
    summary = json.loads((run / "summary.json").read_text())
    # 10 steps of 4 prompts go once through the 30 rows and a third time of that again: the cut one comes once or twice.
    assert summary["skipped"]["prompts"] in (1, 2) and summary["rollouts"] == 2 * (40 - summary["skipped"]["prompts"])
    assert "skipped cut: image" in result.stdout + result.stderr
    assert all(record["loss"] is not None for record in read_lines(run / "metrics.jsonl")[1:])


def test_no_picture_can_be_decoded(refusal, rows: Path, tmp_path: Path) -> None:
    whole = (rows.parent / "images" / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    row = {"image": "cut.png", "question": "?", "answer": "1"}
    message = refusal("--data.path", write_jsonl(tmp_path / "rows.jsonl", *[row] * 6))
    assert "none of the" in message and "can be encoded" in message


def test_prompts_longer_than_allowed(refusal) -> None:
    message = refusal("--rollout.max-prompt-tokens", "10")
    assert "tokens, allowed are 10" in message


def test_a_fresh_interpreter_says_one_line_too(pair: tuple[str, ...], tmp_path: Path) -> None:
    """The other tests fork a process that has imported everything: here the imports may say something as well."""
    other = save_tiny(tmp_path / "other", "qwen2_5_vl", seed=3, texts=("zebra zebra zebra",))
    flags = ["--student.path", pair[1], "--teacher.path", other, "--output-dir", tmp_path / "runs"]
    assert "tokenizers differ" in refused(run_fresh(*flags, cwd=tmp_path))
    assert not (tmp_path / "runs").exists()
