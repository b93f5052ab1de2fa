"""`python -m reopold_vl.compare.results DIR`: fill a page's marked places with tables and pictures of studies."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reopold_vl.cli_errors import fail, nearest, parse_directory
from reopold_vl.config.base import ConfigError

PROGRAM = "python -m reopold_vl.compare.results"
USAGE = """Fill the marked places of a page from finished comparisons below a directory:

  python -m reopold_vl.compare.results comparisons --page docs/results.md --figures docs/figures

What stands between a mark and the next <!-- end --> is written anew, the rest of the page is left as it is:

  <!-- study: headline -->                       all tables that report.md has
  <!-- study: headline: accuracy, paired -->     some of them
  <!-- figure: headline: accuracy_rollouts -->   a picture, drawn into the directory of --figures
  <!-- vision: headline -->                      the tables of the study's vision.json"""
MARK = re.compile(r"<!-- (?P<kind>study|figure|vision): (?P<study>[^:\n]+?)(?:: (?P<names>[^\n]+?))? -->\n")
END = "<!-- end -->"
HEAVIEST = 150_000  # bytes of a picture in the repository; a heavier one is drawn smaller


@dataclass(frozen=True)
class ResultsConfig:
    """Which page is filled, and where its pictures go."""

    page: Path = Path("docs/results.md")
    """The page, with its marks; written in place."""

    figures: Path = Path("docs/figures")
    """Directory of the pictures, named STUDY-PICTURE.png."""

    only: tuple[str, ...] = ()
    """Fill the places of these studies alone; none means all."""


@dataclass(frozen=True)
class Place:
    """A marked place: from the end of its mark to the start of its <!-- end -->."""

    kind: str
    study: str
    names: tuple[str, ...]
    start: int
    stop: int


def places_in(page: str) -> list[Place]:
    """The marked places in order. Raises ConfigError for a mark without an end, or a name that does not exist."""
    from reopold_vl.compare.plots import PICTURES
    from reopold_vl.compare.report import TABLES

    known = {"study": TABLES, "figure": PICTURES, "vision": {}}
    marks = list(MARK.finditer(page))
    found = []
    for index, mark in enumerate(marks):
        limit = marks[index + 1].start() if index + 1 < len(marks) else len(page)
        stop = page.find(END, mark.end(), limit)
        if stop < 0:
            raise ConfigError(f"page has {mark[0].strip()} without {END} behind it")
        names = tuple(name.strip() for name in (mark["names"] or "").split(",") if name.strip())
        for name in names:
            if name not in known[mark["kind"]]:
                raise ConfigError(f"page has {name!r} in {mark[0].strip()}{nearest(name, known[mark['kind']])}")
        if mark["kind"] == "figure" and not names:
            raise ConfigError(f"page has {mark[0].strip()}: name a picture: {', '.join(PICTURES)}")
        found.append(Place(mark["kind"], mark["study"], names, mark.end(), stop))
    return found


def fill(directory: Path, options: ResultsConfig) -> list[str]:
    """Fill the page; the studies whose places were written. The page stays as it is if anything is missing.

    Raises ConfigError naming the page without marks, the studies that are not there, or a picture without data.
    """
    from reopold_vl.runlog import replace_text

    if not options.page.is_file():
        raise ConfigError(f"page is {options.page}: there is no such file")
    page = options.page.read_text(encoding="utf-8")
    places = [place for place in places_in(page) if not options.only or place.study in options.only]
    if not places:
        wanted = f" for {', '.join(options.only)}" if options.only else ""
        raise ConfigError(f"page is {options.page}: it has no marks{wanted}, such as <!-- study: headline -->")
    sources = {(place.study, _file_of(place)): directory / place.study / _file_of(place) for place in places}
    missing = [str(path) for path in sources.values() if not path.is_file()]
    if missing:
        raise ConfigError(f"{len(missing)} of {len(sources)} results are missing: {', '.join(missing)}")
    results = {key: json.loads(path.read_text(encoding="utf-8")) for key, path in sources.items()}
    for place in reversed(places):  # from the end, so that the places before keep their numbers
        lines = _lines(place, results[place.study, _file_of(place)], options)
        page = f"{page[: place.start]}\n" + "\n".join(lines) + f"\n\n{page[place.stop :]}"
    replace_text(options.page, page)
    return list(dict.fromkeys(place.study for place in places))


def _file_of(place: Place) -> str:
    return "vision.json" if place.kind == "vision" else "comparison.json"


def _lines(place: Place, result: dict[str, Any], options: ResultsConfig) -> list[str]:
    from reopold_vl.compare.report import TABLES, summary_lines, table_lines

    if place.kind == "vision":
        from reopold_vl.compare.vision_report import to_markdown

        text = to_markdown(result).splitlines()[1:]  # without its heading
        command = f"python -m reopold_vl.compare.vision comparisons/{place.study}"
        return [*_trimmed(text), "", f"Made by `{command}`."]
    if place.kind == "figure":
        return _figures(place, result, options)
    parts = [table_lines(result, name) for name in place.names or TABLES]
    empty = [name for name, lines in zip(place.names or TABLES, parts, strict=True) if not lines]
    if place.names and empty:
        raise ConfigError(f"study {place.study} has no data for the table {empty[0]}")
    lines = [line for part in parts if part for line in ["", *part]]
    return _trimmed([*summary_lines(result), *lines])


def _figures(place: Place, result: dict[str, Any], options: ResultsConfig) -> list[str]:
    import os

    from reopold_vl.compare.plots import draw_one

    options.figures.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for name in place.names:
        path = options.figures / f"{place.study}-{name}.png"
        for dpi in (110, 90, 70):  # many noisy lines do not compress
            if draw_one(result, name, path, dpi=dpi) is None:
                raise ConfigError(f"study {place.study} has no data for the picture {name}")
            if path.stat().st_size <= HEAVIEST:
                break
        shown = Path(os.path.relpath(path, options.page.parent)).as_posix().replace(" ", "%20")
        lines += [f"![{result['title']}: {name.replace('_', ' ')}]({shown})", ""]
    return lines[:-1]


def _trimmed(lines: Sequence[str]) -> list[str]:
    """Without empty lines at the ends."""
    return "\n".join(lines).strip("\n").split("\n")


def parse(argv: Sequence[str]) -> tuple[Path, ResultsConfig]:
    """(directory, options) from the arguments; raises ConfigError, or SystemExit for --help."""
    place = {"program": PROGRAM, "place": "DIR", "what": "which directory holds the studies' directories?"}
    return parse_directory(ResultsConfig(), argv, **place, usage=USAGE, error=ConfigError)


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the page; the exit status."""
    try:
        directory, options = parse(sys.argv[1:] if argv is None else argv)
        studies = fill(directory, options)
    except ValueError as error:
        return fail(str(error))
    print(f"{options.page} has the results of {', '.join(studies)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
