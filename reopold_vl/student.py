"""What of a loaded model is trained: all weights, all but its vision layers, or adapters alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reopold_vl.lora import AdapterError, add_adapter, has_adapter, is_adapter, load_adapter
from reopold_vl.models import VisionLanguageModel
from reopold_vl.recompute import recompute_layers
from reopold_vl.sources import ModelError, resolve
from reopold_vl.vision import freeze_vision as freeze
from reopold_vl.vision import vision_trains


def prepare_student(
    student: VisionLanguageModel,
    *,
    adapter: str | None = None,
    rank: int = 0,
    alpha: float = 32.0,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    freeze_vision: bool = False,
    freeze_projector: bool = False,
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> None:
    """Set, in place, what is trained and how its gradient is computed.

    `adapter` goes on with an adapter's directory, `rank` > 0 starts new ones (`lora.add_adapter`), and then nothing but
    adapters is trained. Raises AdapterError or ModelError for a combination that cannot be.
    """
    model = student.policy.model
    if has_adapter(model):
        raise ModelError(
            f"student.path is {student.path}, a LoRA adapter: give its base as student.path and itself as "
            "student.adapter, or merge it first (python -m reopold_vl.merge)"
        )
    freeze(model, tower=freeze_vision, projector=freeze_projector)
    if adapter is not None:
        _continue(student, Path(adapter).expanduser(), rank=rank, dropout=dropout)
    elif rank:
        base = base_name(student.path)
        add_adapter(model, base=base, rank=rank, alpha=alpha, dropout=dropout, targets=targets, seed=seed)
    if student.policy.feature_cache is not None and vision_trains(model):
        raise ModelError(
            "student.feature_cache_mb is set, but layers of the vision tower are trained (student.lora.targets): "
            "allowed is 0"
        )
    if gradient_checkpointing and recompute_layers(model) == 0:
        raise ModelError(f"student.gradient_checkpointing: {student.path} has no layers that can be checkpointed")


def base_name(path: str) -> str:
    """What an adapter calls its base: a Hub id, or an absolute path, which plain peft and transformers can load."""
    found = resolve(path)
    return str(Path(found).resolve()) if Path(found).is_dir() else found


def _continue(student: VisionLanguageModel, directory: Path, *, rank: int, dropout: float) -> None:
    if not is_adapter(directory):
        raise AdapterError(f"student.adapter is {directory}: allowed is a directory with an adapter_config.json")
    load_adapter(student.policy.model, directory, base=base_name(student.path), dropout=dropout)
    own = student.policy.model.peft_config["default"].r
    if rank not in (0, own):
        raise AdapterError(f"student.lora.rank is {rank}, and the adapter {directory} has {own}: allowed is {own} or 0")
