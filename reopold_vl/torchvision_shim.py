"""Make PyPI's torchvision importable beside a CPU-only torch; does nothing where it imports already.

PyPI's torchvision is linked against CUDA. On a CPU-only torch its C++ operators cannot load and `import torchvision`
dies while registering a fake kernel for an operator that does not exist, and with it every Qwen-VL processor of
transformers and qwen_vl_utils. None of these operators is used here, so their names are declared and the import is
tried again. Import this module before transformers' image code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import torch


def make_torchvision_usable() -> None:
    """Import torchvision; on the CUDA-linked build beside a CPU torch, declare the two missing operators first."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", signature)
        importlib.import_module("torchvision")


make_torchvision_usable()
