"""`python -m data_recipes.build`: the command. The build itself is in `builder.py`, the settings are in `config.py`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_recipes.config import FILTERS, BuildConfig
from data_recipes.manifest import MANIFEST
from data_recipes.types import RecipeError
from reopold_vl.cli_errors import fail, nearest, parse_flags

PROGRAM = "python -m data_recipes.build"
LISTED = 3  # of the benchmarks that a build could not be compared with

USAGE = """Turn a public data set, or files of your own, into training rows with licence, provenance and no leakage.

  python -m data_recipes.build RECIPE [--output-dir data/NAME] [flags]
  python -m data_recipes.build --mix recipe.yaml --output-dir data/NAME
  python -m data_recipes.build --restore FILTER --output-dir data/NAME    put a filter's rows back
  python -m data_recipes.build --list                                     the recipes, their sources and licences

An interrupted build goes on where it stopped when the same command is run again. Train on the result with
python -m reopold_vl.train --data.path data/NAME. Look at it with python -m data_recipes.inspect data/NAME."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and build; the exit status (0 done, 2 bad input, 1 no room on the disk or another fault of it, 130
    interrupted). After 1 and 130 the same command goes on."""
    try:
        name, config = parse(list(sys.argv[1:] if argv is None else argv))
        if config.list:
            print(listing())
            return 0
        from data_recipes.builder import DiskFull
    except ValueError as error:
        return fail(str(error))
    try:
        manifest = _restore(config) if config.restore is not None else _build(name, config)
    except ValueError as error:
        return fail(str(error))
    except DiskFull as error:
        fail(str(error))
        return 1
    except OSError as error:  # a directory that may not be written to, a disk that fails
        fail(f"{error}; once that is mended, run the same command again to go on")
        return 1
    except KeyboardInterrupt:
        print("stopped: run the same command again to go on", file=sys.stderr)
        return 130
    print(summary(manifest, output_dir(name, config)))
    return 0


def parse(argv: list[str]) -> tuple[str, BuildConfig]:
    """(recipe, settings); the recipe is "" for a mixture, a listing or a restoration. Raises RecipeError."""
    name = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    config = parse_flags(BuildConfig(), argv, program=PROGRAM, usage=USAGE, error=RecipeError)
    if config.restore is not None:
        if name or config.mix or config.output_dir is None:
            raise RecipeError("--restore FILTER takes --output-dir DIRECTORY, and neither a recipe nor --mix")
        if config.restore not in FILTERS:
            raise RecipeError(f"unknown filter {config.restore!r}{nearest(config.restore, FILTERS)}")
    elif not config.list:
        if bool(name) == bool(config.mix):
            raise RecipeError("give one recipe (see --list), or --mix recipe.yaml")
        if config.mix is not None and config.output_dir is None:
            raise RecipeError("--mix needs --output-dir")
    return name, config


def output_dir(name: str, config: BuildConfig) -> Path:
    """Where the data set goes."""
    return config.output_dir if config.output_dir is not None else Path("data") / name


def listing() -> str:
    """The recipes: name, title, licence, where from, and whether training on it is allowed."""
    from data_recipes.recipes import RECIPES

    lines = []
    for recipe in RECIPES.values():
        own = "computed" if recipe.rows else "your own files"
        sources = ", ".join(source.id for source in recipe.sources) or own
        lines += [f"{recipe.name}", f"    {recipe.title}", f"    source: {sources}; splits: {', '.join(recipe.splits)}"]
        lines += [f"    licence: {recipe.licence}"]
        lines += [f"    TRAINING IS NOT ALLOWED: {recipe.forbidden}"] if recipe.forbidden else []
    return "\n".join(lines)


def summary(manifest: dict[str, Any], directory: Path) -> str:
    """What a build says when it is done."""
    rows, found = manifest["rows"], manifest["contamination"]
    lines = [f"{directory}: {rows['kept']:,} of {rows['read']:,} rows"]
    lines += [f"  {name}: {number:,} out" for name, number in rows["rejected"].items()]
    if not found["checked"]:
        lines.append("  not compared with any benchmark")
    elif found["not_checked"]:
        missing = found["not_checked"]
        listed = ", ".join(missing[:LISTED]) + (f", ... (all in {MANIFEST})" if len(missing) > LISTED else "")
        advice = "add them with --benchmarks NAME or NAME=PATH"
        lines.append(f"  not compared with {len(missing)} benchmarks, whose data is not here ({advice}): {listed}")
    if found.get("perhaps_templates"):
        lines.append(f"  perhaps templates (see docs/data.md): {', '.join(found['perhaps_templates'])}")
    lines.append(f"look at {directory / 'contact_sheet.png'}; train with --data.path {directory}")
    return "\n".join(lines)


def _build(name: str, config: BuildConfig) -> dict[str, Any]:
    from data_recipes.builder import build, check_licence
    from data_recipes.tools import toolmaker, with_teacher

    if config.mix is not None:
        from data_recipes.mixture import open_mixture

        stream = open_mixture(config.mix, limit=config.limit, seed=config.seed)
    else:
        from data_recipes.recipes import find_recipe
        from data_recipes.stream import open_stream

        recipe = find_recipe(name)
        if name == "teacher_responses" and config.teacher is not None:
            recipe = find_recipe("local")
        check_licence(recipe, config)  # before anything is downloaded
        stream = open_stream(
            recipe,
            split=config.split,
            data_path=config.data_path,
            mapping=config.mapping,
            limit=config.limit,
            seed=config.seed,
        )
    check_licence(stream.recipe, config)
    for note in stream.notes:
        print(f"note: {note}", file=sys.stderr)
    return build(with_teacher(stream, config), config, output_dir(name, config), toolmaker(config))


def _restore(config: BuildConfig) -> dict[str, Any]:
    from data_recipes.builder import build
    from data_recipes.manifest import read_manifest
    from data_recipes.restore import interrupted, same_benchmarks, stored_config, stored_stream, swap
    from data_recipes.tools import toolmaker

    directory = output_dir("", config)
    fresh = directory.with_name(directory.name + ".restoring")
    if interrupted(fresh):
        fresh.mkdir(exist_ok=True)
        swap(directory, fresh)
        print(f"{directory}: the restoration that was interrupted is finished now", file=sys.stderr)
        return read_manifest(directory)
    manifest = read_manifest(directory)
    again = stored_config(directory, manifest, [config.restore or ""])
    again = dataclasses.replace(again, num_proc=config.num_proc, resume=config.resume)
    manifest = build(stored_stream(directory, manifest), again, fresh, same_benchmarks(toolmaker(again), manifest))
    swap(directory, fresh)
    return manifest


if __name__ == "__main__":
    raise SystemExit(main())
