"""`python -m reopold_vl.merge ADAPTER OUT`: a LoRA adapter and its base as one plain Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from reopold_vl.checkpoint import write_atomically
from reopold_vl.lora import AdapterError, check_base, is_adapter, quiet_peft
from reopold_vl.sources import Files, adapter_base, has_processor, read, resolve


def merge(
    adapter: Path, out: Path, *, base: str | None = None, dtype: str = "auto", trust_remote_code: bool = False
) -> None:
    """Write W + alpha / rank * B A for every adapted W, and everything else of the base, into the directory `out`.

    The sum is taken in fp32 and rounded once, to `dtype` (auto: the base's own). `base` says where the base lies now,
    if not where the adapter says. Raises AdapterError or ModelError; `out` must be absent or empty.
    """
    if not is_adapter(adapter):
        raise AdapterError(f"{adapter}: allowed is a directory with an adapter_config.json")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out} is not empty: choose another directory")
    source = adapter_base(str(adapter), adapter) if base is None else resolve(base)
    files = Files(str(adapter), source, str(adapter) if has_processor(str(adapter)) else source)
    config, processor, model = read(files, dtype="float32", trust_remote_code=trust_remote_code)
    check_base(model, adapter, base=source)
    merged = _merged(model, adapter)
    precision = (config.dtype or torch.float32) if dtype == "auto" else getattr(torch, dtype)

    def write(directory: Path) -> None:
        merged.to(precision).save_pretrained(directory)
        processor.save_pretrained(directory)

    write_atomically(out, write)


def _merged(model: Any, adapter: Path) -> Any:
    """peft's own merge, which knows adapters of all kinds."""
    from peft import PeftModel

    try:
        with quiet_peft():
            wrapped: Any = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise AdapterError(f"adapter {adapter} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    head = model.get_output_embeddings()
    if hasattr(head, "lora_A") and head.weight is model.get_input_embeddings().weight:
        raise AdapterError(f"adapter {adapter} changes the output head, which is the embedding as well (tied)")
    return wrapped.merge_and_unload()


def main(
    adapter: Path,
    out: Path,
    /,
    base: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Merge a LoRA adapter into its base.

    Args:
        adapter: The adapter's directory, such as runs/NAME/student.
        out: The directory to write; it must be absent or empty.
        base: Where the base lies now, if not where the adapter says.
        dtype: Precision of the merged weights; auto is the base's own.
        trust_remote_code: Run Python code that the base brings along.
    """
    merge(adapter, out, base=base, dtype=dtype, trust_remote_code=trust_remote_code)
    print(f"{adapter} and its base are one model in {out}")


if __name__ == "__main__":
    import tyro

    from reopold_vl.cli_errors import fail

    try:
        tyro.cli(main, prog="python -m reopold_vl.merge")
    except ValueError as problem_found:
        raise SystemExit(fail(str(problem_found))) from None
