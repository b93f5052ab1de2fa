"""Screens of `python -m reopold_vl.check`: the embedded pair, and the same pair with faults planted in it.

    python -m benchmarks.check_screens

Each fault is planted in a copy on disk, as a user would meet it: another end token, a projector that hands on nothing
of the picture, a chat template of another model, and a teacher and student of real sizes on this machine.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reopold_vl
from reopold_vl.check.__main__ import main as check

ZOO = Path(reopold_vl.__file__).parent / "zoo"
FLAGS = ["--data.test-rows", "110", "--data.validation-rows", "0"]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def other_end_token(teacher: Path) -> None:
    edit_json(teacher / "generation_config.json", eos_token_id=0)


def blind(teacher: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(teacher / "model.safetensors")
    last = [name for name in weights if "merger.mlp.2" in name]
    assert last, "the projector's last layer has another name"
    for name in last:
        weights[name].zero_()
    save_file(weights, teacher / "model.safetensors", metadata={"format": "pt"})


def other_template(teacher: Path) -> None:
    template = teacher / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "ASSISTANT"))


def real_sizes(model: Path) -> None:
    """The shape of Qwen2.5-VL-32B in config.json alone; the weights are those of the tiny model, and never read."""
    config = json.loads((model / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "layer_types": ["full_attention"] * 64,
    }
    config["vision_config"] |= {"depth": 32, "hidden_size": 1280, "intermediate_size": 3456, "out_hidden_size": 5120}
    (model / "config.json").write_text(json.dumps(config))


FAULTS: dict[str, Callable[[Path], None] | None] = {
    "a good pair": None,
    "another end token": other_end_token,
    "a teacher that sees nothing": blind,
    "another chat template": other_template,
    "too large for this machine": real_sizes,
}


def screens() -> int:
    """Print all of them; 0 if the good pair is green and every fault red."""
    right = True
    with tempfile.TemporaryDirectory() as scratch:
        for number, (title, plant) in enumerate(FAULTS.items()):
            teacher = Path(scratch) / str(number) / "teacher"
            shutil.copytree(ZOO / "teacher", teacher)
            if plant is not None:
                plant(teacher)
            print(f"\n== {title}\n", flush=True)
            right &= check(["zoo:student", str(teacher), *FLAGS]) == (0 if plant is None else 1)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(screens())
