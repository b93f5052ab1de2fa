"""Counts of `benchmarks.figures.waits` for a tiny model of each family, as JSON: in a process of its own."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from tiny_families import RECIPES, load_family, save_family

from benchmarks.figures.waits import count

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    found = {}
    for family in [*RECIPES, "qwen2_5_vl", "qwen3_vl"]:
        found[family] = vars(count(load_family(save_family(Path(sys.argv[1]) / family, family, seed=0)))[0])
    print(json.dumps(found))
