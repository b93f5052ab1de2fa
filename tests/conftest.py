"""Fixtures: offline tiny models of the real classes; the real samples where REOPOLD_VL_SHARED says they are."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reopold_vl.models import VisionLanguageModel
    from reopold_vl.types import Prompt

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing in the tests touches the network

import torch  # before the package: types.py then resolves its tensor annotations
from jaxtyping import install_import_hook

# Every annotated function of these modules checks its tensors' shapes and dtypes while the tests run.
CHECKED = ("types", "logprobs", "loss", "objectives", "collate", "policy", "rollout", "score", "spans")
# An int where a float is asked for is fine, as it is for the type checker (PEP 484).
BEARTYPE = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
_hook = install_import_hook([f"reopold_vl.{name}" for name in CHECKED], BEARTYPE)

import reopold_vl.torchvision_shim  # noqa: E402, F401

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared samples of real benchmarks; tests that need them skip where they are absent."""
    value = os.environ.get("REOPOLD_VL_SHARED")
    if not value or not (Path(value) / "samples").is_dir():
        pytest.skip("REOPOLD_VL_SHARED does not name a directory with samples/")
    return Path(value)


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def tiny_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model of each family (see tiny.py), as plain Hugging Face directories."""
    from tiny import FAMILIES, save_tiny

    root = tmp_path_factory.mktemp("tiny")
    return {name: save_tiny(root / name, name, seed=0) for name in FAMILIES}


@pytest.fixture(scope="session")
def vlm(family: str, tiny_dirs: dict[str, Path]) -> VisionLanguageModel:
    """The tiny model of the family, loaded; shared by all tests, so never changed (see `fresh_vlm`)."""
    from tiny import load_tiny

    return load_tiny(tiny_dirs[family])


@pytest.fixture
def fresh_vlm(vlm: VisionLanguageModel) -> VisionLanguageModel:
    """A copy of `vlm` that a test may train or break."""
    return copy.deepcopy(vlm)


@pytest.fixture(scope="session")
def prompts(vlm: VisionLanguageModel) -> list[Prompt]:
    """Rows with one, no, two and one images, of different lengths."""
    from tiny import mixed_samples

    return [vlm.encoder(sample) for sample in mixed_samples()]


@pytest.fixture
def tokens_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """[rows, length] of each pass through the decoder from now on."""
    from reopold_vl.policy import Policy

    seen: list[tuple[int, int]] = []
    plain = Policy.hidden_states

    def spy(self: Policy, *, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        seen.append((ids.shape[0], ids.shape[1]))
        return plain(self, ids=ids, **inputs)

    monkeypatch.setattr(Policy, "hidden_states", spy)
    return seen
