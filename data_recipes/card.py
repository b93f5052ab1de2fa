"""README.md of a built directory: the data card, with the front matter that the Hub and `datasets` read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Licences as the Hub names them; whatever is not plainly one of these is "other".
_HUB_LICENCES = ("mit", "apache-2.0", "gpl-3.0", "bsd-3-clause", "cc0-1.0")
_CREATIVE = ("by-nc-sa", "by-nc-nd", "by-nc", "by-sa", "by-nd", "by")
_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(output_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Write README.md from a manifest."""
    text = "\n".join([_front_matter(manifest), *_body(manifest)]) + "\n"
    (output_dir / "README.md").write_text(text, encoding="utf-8")


def hub_licence(licence: str) -> str:
    """The Hub's tag for a licence in words: "MIT" -> "mit", "CC BY-NC 4.0" -> "cc-by-nc-4.0", else "other"."""
    name = licence.lower().removesuffix("(non-commercial)").strip()
    if name in _HUB_LICENCES:
        return name
    for kind in _CREATIVE:
        for version in ("4.0", "3.0"):
            if name == f"cc {kind} {version}":
                return f"cc-{kind}-{version}"
    return "other"


def _front_matter(manifest: Mapping[str, Any]) -> str:
    import yaml

    rows = manifest["rows"]["kept"]
    tag = hub_licence(manifest["licence"])
    configs = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    if sum(manifest["rows"]["rejected"].values()):
        configs.append({"config_name": "rejected", "data_files": [{"split": "train", "path": "rejected/*.parquet"}]})
    content = {
        "pretty_name": manifest["title"],
        "license": tag,
        **({"license_name": "see-below"} if tag == "other" else {}),
        "task_categories": ["image-text-to-text", "visual-question-answering"],
        "size_categories": [next((name for most, name in _SIZES if rows < most), "n>1M")],
        "configs": configs,
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def _body(manifest: Mapping[str, Any]) -> list[str]:
    rows, settings = manifest["rows"], manifest["settings"]
    revision = f" at revision `{manifest['revision']}`" if manifest["revision"] else ""
    lines = [
        f"# {manifest['title']}",
        "",
        f"{rows['kept']:,} rows of {rows['read']:,} read, made by `data_recipes` {manifest['version']} (recipe "
        f"`{manifest['recipe']}`, split `{manifest['split']}`, seed {settings['seed']}).",
        "",
        f"- Source: {manifest['origin']}{revision}",
        f"- Licence: {manifest['licence']}",
        f"- Citation: {manifest['citation'] or 'none given'}",
    ]
    if manifest["forbidden"]:
        lines.append(f"- **Training on this data is not allowed**: {manifest['forbidden']}. Built with `--i-know`.")
    lines += [f"- {note}" for note in manifest["notes"]]
    lines += ["", "![random rows](contact_sheet.png)", "", "## Rows", "", "| | rows |", "|---|---:|"]
    lines += [f"| read | {rows['read']:,} |"]
    lines += [f"| taken out: {name} | {number:,} |" for name, number in rows["rejected"].items()]
    lines += [f"| **kept** | **{rows['kept']:,}** |", ""]
    lines += [
        "What was taken out, and why, is in `rejected/`; `python -m data_recipes.build --restore FILTER --output-dir "
        "THIS_DIRECTORY` puts the rows of a filter back.",
        "",
    ]
    lines += _shares("Recipes", manifest["recipes"]) if len(manifest["recipes"]) > 1 else []
    lines += _shares("Answer types", manifest["answer_types"]) + _shares("Sources", manifest["sources"])
    if manifest["shared_images"]:
        lines += [f"{manifest['shared_images']:,} rows ask about an image that an earlier row shows too.", ""]
    return lines + _contamination(manifest["contamination"])


def _shares(title: str, counts: Mapping[str, int], most: int = 30) -> list[str]:
    total = sum(counts.values())
    if not total:
        return []
    lines = [f"## {title}", "", "| | rows | share |", "|---|---:|---:|"]
    lines += [f"| {_cell(name)} | {n:,} | {n / total:.1%} |" for name, n in list(counts.items())[:most]]
    if len(counts) > most:
        rest = sum(list(counts.values())[most:])
        lines.append(f"| {len(counts) - most:,} others | {rest:,} | {rest / total:.1%} |")
    return [*lines, ""]


def _contamination(found: Mapping[str, Any]) -> list[str]:
    if not found["checked"]:
        return ["## Contamination", "", "**Not checked against any benchmark.**"]
    against = ", ".join(f"{name} ({entry['problems']:,})" for name, entry in found["against"].items()) or "nothing"
    lines = ["## Contamination", "", f"Compared with: {against}.", ""]
    if found["not_checked"]:
        lines += [f"Not compared with (no data at hand): {', '.join(found['not_checked'])}.", ""]
    hits = ", ".join(f"{name} {number:,}" for name, number in found["hits_by_bench"].items())
    lines += [
        f"Benchmark items found among the rows (taken out): {hits or 'none'}. See `rejected/contamination.jsonl`."
    ]
    if found["perhaps_templates"]:
        lines += ["", f"Questions that may be templates: {', '.join(found['perhaps_templates'])}."]
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:80]
