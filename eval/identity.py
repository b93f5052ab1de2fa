"""Which model was it? A hash that changes with the weights, so that stored answers are never taken for another's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from reopold_vl.models import ModelError, resolve

WHOLE_FILE_BYTES = 64 * 2**20
"""Weight files up to this size enter by content; larger ones by header, size and time of change."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_SETTINGS = (".json", ".jinja", ".txt", ".model", ".py")


def model_identity(path: str, *, trust_remote_code: bool = False) -> str:
    """What a model is, as a hash (local and embedded directories) or as id and commit (the Hub).

    For a directory all files count that answers depend on: configuration, tokenizer, processor, template, weights.
    Raises ModelError for a path that holds no model.
    """
    source = resolve(path)
    if Path(source).is_dir():
        return _directory_hash(Path(source))
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: cannot be loaded as a vision-language model: {reason}") from error
    return f"{source}@{getattr(config, '_commit_hash', None) or 'unknown revision'}"


def _directory_hash(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.suffix in _SETTINGS or file.suffix in _WEIGHTS:
            digest.update(json.dumps([file.name, _file_hash(file)]).encode())
    return digest.hexdigest()


def _file_hash(file: Path) -> str:
    status = file.stat()
    with file.open("rb") as stream:
        if file.suffix not in _WEIGHTS or status.st_size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        # The first bytes of a safetensors file are its header: names, types and shapes.
        head = hashlib.sha256(stream.read(2**20)).hexdigest()
    return f"{head} {status.st_size} {status.st_mtime_ns}"


def same_directory(one: str, other: str) -> bool:
    """Whether both paths name one model directory."""
    first, second = Path(resolve(one)), Path(resolve(other))
    return first.resolve() == second.resolve() if first.is_dir() and second.is_dir() else one == other
