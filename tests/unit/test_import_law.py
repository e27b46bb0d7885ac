"""The import law of docs/design.md, checked on the syntax tree of every module of the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "fusewright"
STAGES = frozenset({"capture", "rewrite", "schedule", "emit", "run"})
# What a stage may import besides itself; `problem` only where a model is at hand.
COMMON = frozenset({"ir", "target", "context", "options", "errors"})
PROBLEM_READERS = frozenset({"capture", "run"})
STAGE_USERS = frozenset({"pipeline", "cli", "__init__", "__main__"})
TORCH_USERS = frozenset({"problem", "capture", "run"})
ENVIRONMENT_READERS = frozenset({"options"})


def area_of(path: Path) -> str:
    """The first part below the package: `capture` for capture/ops.py, `cli` for cli.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def breaches(area: str, line: int, name: str) -> Iterator[str]:
    """The rules that one import in `area` breaks, one sentence for each."""
    parts = name.split(".")
    if parts[0] == "torch" and area not in TORCH_USERS:
        yield f"line {line}: {area} imports torch"
    if parts[0] != "fusewright" or len(parts) < 2:
        return
    imported = parts[1]
    if imported in STAGES and imported != area and area not in STAGE_USERS:
        yield f"line {line}: {area} imports the stage {imported}"
    allowed = COMMON | {area} | ({"problem"} if area in PROBLEM_READERS else set())
    if area in STAGES and imported not in allowed:
        yield f"line {line}: the stage {area} imports {imported}"


def breaches_of_file(text: str, area: str, package: tuple[str, ...]) -> list[str]:
    tree = ast.parse(text)
    return [
        sentence
        for line, name in imported_names(tree, package)
        for sentence in breaches(area, line, name)
    ]


def environment_reads(text: str) -> list[int]:
    """Lines that name os.environ or os.getenv."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_obeys_import_law(path: Path) -> None:
    package = ("fusewright", *path.relative_to(PACKAGE).parts[:-1])
    assert breaches_of_file(path.read_text(encoding="utf-8"), area_of(path), package) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_options_reads_the_environment(path: Path) -> None:
    lines = environment_reads(path.read_text(encoding="utf-8"))
    assert area_of(path) in ENVIRONMENT_READERS or lines == []


@pytest.mark.parametrize(
    ("area", "text"),
    [
        ("capture", "from fusewright.rewrite import engine"),
        ("capture", "from ..rewrite import engine"),
        ("capture", "from .. import rewrite"),
        ("rewrite", "def f():\n    import torch"),
        ("emit", "from torch import nn"),
        ("emit", "import fusewright.problem"),
        ("ir", "from fusewright.emit import printer"),
        ("schedule", "from fusewright import pipeline"),
    ],
)
def test_a_breach_is_seen(area: str, text: str) -> None:
    assert breaches_of_file(text, area, ("fusewright", area)) != []


@pytest.mark.parametrize(
    ("area", "text"),
    [
        (
            "capture",
            "import torch\nfrom .. import ir\nfrom ..problem import Problem\nfrom . import x",
        ),
        ("rewrite", "from fusewright.ir.graph import Node\nfrom fusewright.rewrite import rules"),
        ("pipeline", "from . import capture, emit, run"),
    ],
)
def test_a_lawful_import_passes(area: str, text: str) -> None:
    package = ("fusewright",) if area == "pipeline" else ("fusewright", area)
    assert breaches_of_file(text, area, package) == []
