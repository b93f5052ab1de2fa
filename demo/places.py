"""Finished and running work on disk: only what lies under the directories that the operator named is ever opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError

_DEPTH = 3  # levels below a named directory that are looked at
_MOST = 500


@dataclass(frozen=True)
class Places:
    """The directories that may be read, and what is found in them under names that visitors may choose from."""

    roots: tuple[Path, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Places:
        return cls(tuple(path.expanduser().resolve() for path in paths))

    def training_runs(self) -> list[str]:
        """Directories that hold a metrics.jsonl, newest first."""
        return self._holding("metrics.jsonl")

    def evaluations(self) -> list[str]:
        """Directories that hold stored responses of `eval.run`, newest first."""
        found = self._holding("responses_*.jsonl")
        return [place for place in found if Path(place).name != "baseline" or str(Path(place).parent) not in found]

    def open(self, name: object, known: Sequence[str]) -> Path:
        """The directory of that name; raises DemoError unless it is one of `known` and lies under a root."""
        if not isinstance(name, str) or name not in known:
            listed = ", ".join(known[:5]) or "none, start with --read DIR"
            raise DemoError(f"directory {name!r:.80} is not one of those found: {listed}")
        path = Path(name)
        self.require(path)
        return path

    def require(self, path: Path) -> None:
        """Raise DemoError unless the path, links resolved, lies under a root."""
        real = path.resolve()
        if not any(real == root or root in real.parents for root in self.roots):
            raise DemoError(f"{path.name}: lies outside of the directories that this page may read")

    def _holding(self, pattern: str) -> list[str]:
        """Real directories only: a link could lead anywhere."""
        found: dict[Path, float] = {}
        waiting = [(root, 0) for root in self.roots if root.is_dir()]
        while waiting and len(found) < _MOST:
            place, depth = waiting.pop(0)
            try:
                files = [file for file in place.glob(pattern) if file.is_file()]
                inner = [child for child in sorted(place.iterdir()) if child.is_dir() and not child.is_symlink()]
            except OSError:  # not readable for this user: nothing to show
                continue
            if files:
                found[place] = max(file.stat().st_mtime for file in files)
            if depth < _DEPTH:
                waiting += [(child, depth + 1) for child in inner if not child.name.startswith(".")]
        return [str(place) for place in sorted(found, key=lambda place: -found[place])]
