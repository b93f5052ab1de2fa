"""What a build has finished: one line a committed shard, in a directory that is gone when the build is complete."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.types import RecipeError
from reopold_vl.runlog import replace_text

WORK_DIR = ".build"


@dataclass(frozen=True)
class Shard:
    """A committed shard. `end` is the stream's first row that is not in it, `seen` how many records of the duplicate
    filter belong to it and all before; `counts` are rows by the filter that took them out ("kept": none did)."""

    kept: int
    rejected: int
    end: int
    seen: int
    counts: dict[str, int] = field(default_factory=dict)


class Journal:
    """Opened on a directory: what is committed there, if it was begun with the same settings."""

    def __init__(self, output_dir: Path) -> None:
        self.work = output_dir / WORK_DIR
        self._plan, self._lines = self.work / "plan.json", self.work / "shards.jsonl"
        self.shards: list[Shard] = []

    @property
    def begun(self) -> bool:
        """Whether an interrupted build lies here."""
        return self._plan.is_file()

    def begin(self, settings: dict[str, Any]) -> None:
        """Start over."""
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(self._plan, settings)
        self._lines.write_bytes(b"")

    def resume(self, settings: dict[str, Any]) -> bool:
        """Read what is committed; False where there is nothing and the build was begun with other settings.

        Raises RecipeError where something is committed with other settings, naming one.
        """
        data = self._lines.read_bytes() if self._lines.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]  # a kill in the middle of a line leaves a piece of one
        before = json.loads(self._plan.read_text(encoding="utf-8"))
        for name in {**before, **settings}:
            if before.get(name) != (now := settings.get(name)):
                if not whole:
                    return False
                raise RecipeError(
                    f"{self.work.parent} holds an interrupted build with {name}={before.get(name)!r}, now it is "
                    f"{now!r}: go on with the same settings, or start over with --no-resume"
                )
        self.shards = [Shard(**json.loads(line)) for line in whole.splitlines()]
        self._lines.write_bytes(whole)
        return True

    def commit(self, shard: Shard) -> None:
        """Note a shard whose files are in their place already."""
        with self._lines.open("ab") as file:
            file.write(json.dumps(asdict(shard)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.shards.append(shard)

    def kept_path(self, number: int) -> Path:
        return self.work / f"kept-{number:05d}.parquet"

    def rejected_path(self, number: int) -> Path:
        return self.work / f"rejected-{number:05d}.parquet"

    def counts(self) -> dict[str, int]:
        """Rows by filter over all shards; "kept" are those that stayed."""
        total: dict[str, int] = {}
        for shard in self.shards:
            for name, number in shard.counts.items():
                total[name] = total.get(name, 0) + number
        return total


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a file that appears whole or not at all."""
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
