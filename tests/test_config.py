"""config.yaml: what is refused, and that each refusal is one line naming the setting."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.config_file import from_dict, read_config, to_dict
from reopold_vl.presets import PRESETS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepz: 3\n", "unknown setting stepz (did you mean steps?)"),
        ("optim:\n  lrr: 0.1\n", "unknown setting optim.lrr (did you mean optim.lr?)"),
        ("optim:\n  lr: 2\n", "optim.lr is 2.0: allowed is above 0 and below 1"),
        ("optim: 3\n", "optim is 3"),
        ("optim:\n", "optim is None"),
        ("steps: many\n", "steps is 'many'"),
        ("steps: 0\n", "steps is 0: allowed is 1 or more"),
        ("objective: reverse_kl\n", "objective is 'reverse_kl': allowed is a name and its settings"),
        ("objective:\n", "objective is None"),
        ("objective:\n  name: reverze\n", "objective.name is 'reverze': allowed is reopold, reverse_kl"),
        ("objective:\n  name: [1]\n", "objective.name is [1]"),
        ("objective:\n  name: reopold\n  mixture: 2\n", "objective.mixture (lambda) is 2.0"),
        ("objective:\n  mixtur: 0.2\n", "did you mean objective.mixture?"),
        ("objective:\n  name: reverse_kl\n  mixture: 0.2\n", "unknown setting objective.mixture"),
        ("student:\n  dtype: float32\n", "student.path"),
        ("student:\n  path: x\n  dtype: float33\n", "student.dtype is 'float33'"),
        ("1: 2\n", "unknown setting 1"),
        ("- 1\n", "holds no settings"),
        ("", "holds no settings"),
        ("{", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("\x00\x01", "is not YAML"),
    ],
)
def test_bad_config_files_get_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    message = str(caught.value)
    assert said in message and "my.yaml" in message and "\n" not in message
    assert len(message) < 400


def test_a_config_that_is_no_text_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes(b"\xb9\xff\xfe\x80")
    with pytest.raises(ConfigError, match=r"my\.yaml cannot be read"):
        read_config(tmp_path / "my.yaml")


def test_absent_settings_keep_their_defaults() -> None:
    assert from_dict({}) == TrainConfig()
    assert from_dict({"steps": 5, "optim": {"lr": 0.25}}).optim.lr == 0.25
    assert from_dict({"steps": 5}).optim == TrainConfig().optim


@pytest.mark.parametrize("name", PRESETS)
def test_the_dictionary_holds_every_setting(name: str) -> None:
    def names(value: object) -> set[str]:
        assert is_dataclass(value)
        return {item.name for item in fields(value)}

    config = PRESETS[name]
    values = to_dict(config)
    assert set(values) == names(config)
    assert set(values["optim"]) == names(config.optim)
    assert set(values["objective"]) == {"name"} | names(config.objective)
