"""The papers of the house: every command parses, every make target exists, every link leads somewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from cli_help import ROOT

import data_recipes.build
import data_recipes.inspect
import demo.app
import eval.config
import reopold_vl.serve_teacher
from reopold_vl.check import __main__ as check
from reopold_vl.cli import parse
from reopold_vl.compare.__main__ import CompareConfig
from reopold_vl.compare.results import ResultsConfig
from reopold_vl.compare.vision import VisionConfig
from reopold_vl.config_file import to_dict, write_config
from reopold_vl.objectives import OBJECTIVES
from reopold_vl.presets import PRESETS
from reopold_vl.serving.settings import ServeConfig

README = ROOT / "README.md"
PACKAGES = ("reopold_vl", "eval", "data_recipes", "demo", "benchmarks")
PARSERS = {"eval.run": eval.config.parse, "data_recipes.build": data_recipes.build.parse, "demo.app": demo.app.parse}
PARSERS["reopold_vl.serve_teacher"] = reopold_vl.serve_teacher.parse
CONFIGS = (
    CompareConfig,
    ResultsConfig,
    VisionConfig,
    eval.config.EvalConfig,
    data_recipes.build.BuildConfig,
    data_recipes.inspect.InspectConfig,
    demo.app.DemoConfig,
    ServeConfig,
)
PAPERS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "reopold_vl" / "zoo" / "README.md"]
PAPERS += sorted((ROOT / "docs").glob("*.md"))


def papers() -> list[Path]:
    return [path for path in PAPERS if path.is_file()]


@pytest.fixture(params=papers(), ids=lambda path: str(path.relative_to(ROOT)))
def paper(request: pytest.FixtureRequest) -> Path:
    return request.param


def fenced(text: str, language: str = "bash") -> list[str]:
    """The lines of all fenced blocks of a language, continued lines joined, comments dropped."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def split(command: str) -> list[str]:
    """The words of a command before any pipe or comment, without leading VAR=value."""
    words = shlex.split(command, comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in ("|", "&&", ";", ">", "2>&1")), len(words))]
    return words[next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words)) :]


def module_commands(text: str) -> list[list[str]]:
    """[module, argument, ...] of every `python -m` or torchrun command of ours in a bash block."""
    found = [split(line) for line in fenced(text)]
    ours = [words for words in found if words and re.match(r"(python[\d.]*|torchrun)$", words[0]) and "-m" in words]
    runs = [words[words.index("-m") + 1 :] for words in ours]
    return [words for words in runs if words[0].split(".")[0] in PACKAGES]


def flags(config: dict, prefix: str = "--") -> set[str]:
    names: set[str] = set()
    for name, value in config.items():
        plain = f"{prefix}{name}".replace("_", "-")
        names |= flags(value, f"{plain}.") if isinstance(value, dict) else {plain}
    return names


def parse_train(arguments: list[str], scratch: Path) -> None:
    """Parse as the command would, with files of our own where the example names the reader's."""
    for flag in ("--config", "--resume"):
        if flag in arguments:
            run = scratch / "run"
            run.mkdir(exist_ok=True)
            write_config(PRESETS["embedded"], run / "config.yaml")
            arguments[arguments.index(flag) + 1] = str(run / "config.yaml" if flag == "--config" else run)
    try:
        parse(arguments)
    except SystemExit as stop:
        assert not stop.code and "--help" in arguments


def parse_check(arguments: list[str]) -> None:
    if "--help" not in arguments:
        check.read(arguments)


def test_the_readme_is_there() -> None:
    if not README.is_file():
        pytest.skip("README.md is not written yet")
    commands = [words[0] for words in module_commands(README.read_text())]
    assert "reopold_vl.train" in commands and "reopold_vl.check" in commands


def test_commands_parse(paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module, *arguments in module_commands(paper.read_text()):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations:  # a package is run by its __main__
            spec = importlib.util.find_spec(f"{module}.__main__")
        assert spec is not None and spec.origin is not None, f"{paper.name}: no module {module}"
        assert '__name__ == "__main__"' in Path(spec.origin).read_text(), f"{paper.name}: {module} is no command"
        if module == "reopold_vl.train":
            parse_train(arguments, tmp_path)
        elif module == "reopold_vl.check":
            parse_check(arguments)
        elif module in PARSERS:
            PARSERS[module](arguments)


def test_commands_in_the_text_exist(paper: Path) -> None:
    for module in re.findall(rf"python -m ((?:{'|'.join(PACKAGES)})\.[\w.]*\w)", paper.read_text()):
        assert importlib.util.find_spec(module) is not None, f"{paper.name}: no module {module}"


def test_flags_in_the_text_exist(paper: Path) -> None:
    """`--data.test-path` and the like: settings of one of the commands."""
    known = {"--help", "--config", "--resume", "--objective", "--data", "--max-pixels", "--json", "--rows", "--add"}
    known |= {"--quick", "--compare-teacher", "--base"}  # of check and merge
    known |= {"--enable-scale-out", "--api-key", "--mm-processor-kwargs", "--max-model-len"}  # of vLLM
    known |= {"--no-enable-prefix-caching", "--signal"}  # of vLLM and of SLURM
    for config in CONFIGS:
        names = [field.name.replace("_", "-") for field in dataclasses.fields(config)]
        known |= {f"--{name}" for name in names} | {f"--no-{name}" for name in names}
    for objective in OBJECTIVES:
        known |= flags(to_dict(parse(["--objective", objective])[0]))
    for flag in re.findall(r"`(--[a-z][\w.-]*)(?![\w.*-])", prose(paper.read_text())):
        assert flag in known, f"{paper.name}: {flag}"


def test_make_targets_exist(paper: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"train", "test", "check"} <= targets
    text = paper.read_text()
    named = [words[1] for words in map(split, fenced(text)) if words[:1] == ["make"] and len(words) > 1]
    named += re.findall(r"`make ([\w-]+)", text)
    assert set(named) <= targets, f"{paper.name}: make {set(named) - targets}"


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(path.read_text()), flags=re.M)}


def test_links_and_pictures_lead_somewhere(paper: Path) -> None:
    text = prose(paper.read_text())
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"<img[^>]*\bsrc=\"([^\"]+)\"", text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = paper.parent / name if name else paper
        assert target.exists(), f"{paper.name}: {link}"
        assert ROOT in (target.resolve(), *target.resolve().parents), f"{paper.name}: {link} leaves the repository"
        if anchor:
            assert anchor in anchors(target), f"{paper.name}: {link} has no such heading"


def test_no_placeholder_is_left(paper: Path) -> None:
    assert not re.search(r"@@\w+@@|\bTODO\b|\bTBD\b|\bXXX\b", paper.read_text())
